"""Parts of README, in both languages, that a script writes: what stands between two marks."""

from collections.abc import Sequence
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
READMES = (README, README.parent / ".github" / "README.zh-CN.md")


def marks(name: str, session: str) -> tuple[str, str]:
    """The lines before and after the part; the first says which nox session makes it."""
    return f"<!-- {name}: made by nox -s {session} -->\n", f"<!-- {name}: end -->\n"


def read_section(name: str, session: str, file: Path = README) -> str:
    start, end = marks(name, session)
    return file.read_text(encoding="utf-8").partition(start)[2].partition(end)[0]


def write_section(name: str, session: str, body: str, files: Sequence[Path] = READMES) -> None:
    start, end = marks(name, session)
    for file in files:
        before, has_start, rest = file.read_text(encoding="utf-8").partition(start)
        _, has_end, after = rest.partition(end)
        if not (has_start and has_end):
            raise SystemExit(f"{file.name} lacks the marks {start.strip()} and {end.strip()}")
        file.write_text(before + start + body + end + after, encoding="utf-8", newline="\n")
