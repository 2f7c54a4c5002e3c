"""Where and with what figures were measured."""

import platform
from importlib.metadata import PackageNotFoundError, version


def environment(*packages: str) -> dict[str, str]:
    """Say where and with what a figure was measured."""
    found = {"python": platform.python_version(), "machine": _processor(), "os": platform.system()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
