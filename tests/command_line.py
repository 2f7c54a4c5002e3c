"""What tests of the command line call, and what they read in a run folder."""

import json
from pathlib import Path
from typing import Any

from xbackprop.cli.main import main


def call(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return exit code, output and errors."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
