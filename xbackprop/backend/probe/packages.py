"""Which CuPy distributions are installed, told without importing any of them."""

import re
import sys
from pathlib import Path

_DISTRIBUTION = re.compile(r"(amd-)?cupy(-cuda\d+x?|-rocm-[\d-]+)?")


def installed_cupy_packages() -> dict[str, str]:
    """Return the name and version of every installed CuPy distribution, without importing any."""
    import importlib.metadata  # 20 ms, and nothing else of the probe needs it

    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        # By file name first: reading the metadata of every installed package takes 40 ms and more.
        for pattern in ("*cupy*.dist-info", "*cupy*.egg-info"):
            for path in sorted(folder.glob(pattern)):
                distribution = importlib.metadata.Distribution.at(path)
                name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
                if _DISTRIBUTION.fullmatch(name):
                    found.setdefault(name, distribution.version)
    return found
