"""A pytest plugin that counts, for every module, which comparisons with PyTorch match.

It is active in runs of `pytest -m torch_parity`, prints the table at their end, and writes it with
`--parity-counts FILE`.
"""

import json
import platform
from collections import Counter, defaultdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.names import OTHERS, families, modules_compared

ORDER = ["passed", "skipped", "failed"]
TORCH_PLACES = (
    "torch.nn",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torch.optim.swa_utils",
    "torch.nn.utils",
)
OUTCOMES = {"passed": "match", "failed": "mismatch", "skipped": "skipped"}


class ParityCounts:
    def __init__(self, path: str | None) -> None:
        self.path = Path(path) if path else None
        self.outcomes: dict[str, str] = {}  # by test, the worst of its phases
        self.modules: dict[str, list[str]] = {}
        self.reasons: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.get_closest_marker("torch_parity"):
                item.user_properties.append(("modules", modules_compared(item)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        modules = dict(report.user_properties).get("modules")
        if modules is None:
            return
        self.modules[report.nodeid] = modules
        worst = max(report.outcome, self.outcomes.get(report.nodeid, "passed"), key=ORDER.index)
        self.outcomes[report.nodeid] = worst
        if report.skipped:
            self.reasons[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")

    def document(self) -> dict[str, Any]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for test, outcome in self.outcomes.items():
            for module in self.modules[test]:
                counts[module][OUTCOMES[outcome]] += 1
                if test in self.reasons:
                    reasons[module][self.reasons[test]] += 1
        order = [*families(), *sorted(set(counts) - set(families()))]
        return {
            "versions": {
                "Python": platform.python_version(),
                "NumPy": np.__version__,
                "PyTorch": torch_version(),
            },
            "modules": [
                {
                    "name": name,
                    "family": families().get(name, OTHERS),
                    "pytorch": name_in_torch(name),
                    **{word: counts[name][word] for word in OUTCOMES.values()},
                    "why skipped": dict(reasons[name]),
                }
                for name in order
            ],
        }

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        document = self.document()
        terminalreporter.section(f"comparisons with PyTorch {document['versions']['PyTorch']}")
        for line in table(document["modules"]):
            terminalreporter.write_line(line)
        if self.path:
            text = json.dumps(document, indent=1, ensure_ascii=False)
            self.path.write_text(text + "\n", encoding="utf-8", newline="\n")


def table(modules: list[dict[str, Any]]) -> list[str]:
    """One line per module, the total, and why something was skipped."""
    words = list(OUTCOMES.values())
    total = {word: sum(row[word] for row in modules) for word in words}
    rows = [*modules, {"family": "", "name": "all together", **total}]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'family':16}{'module':{width}}" + "".join(f"{word:>10}" for word in words)]
    for row in rows:
        figures = "".join(f"{row[word]:10}" for word in words)
        lines.append(f"{row['family']:16}{row['name']:{width}}{figures}")
    for row in modules:
        lines += [f"{row['name']}: {n} skipped: {why}" for why, n in row["why skipped"].items()]
    return lines


def torch_version() -> str:
    try:
        return version("torch").partition("+")[0]
    except PackageNotFoundError:
        return "(not installed)"


def name_in_torch(name: str) -> str | None:
    """Where PyTorch has the same name; the catalogue links to its page."""
    for place in TORCH_PLACES if find_spec("torch") else ():
        if hasattr(import_module(place), name):
            return f"{place}.{name}"
    return None
