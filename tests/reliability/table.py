"""The table of figures in README, made of what the long checks wrote.

`python -m reliability.table` writes it; a test compares it.
"""

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- reliability: made by nox -s reliability -->\n", "<!-- reliability: end -->\n"


def documents() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def render(found: list[dict[str, Any]]) -> str:
    """Return the Markdown between the two marks."""
    lines = ["| check | held | |", "|---|---|---|"]
    for document in found:
        for row in document["figures"]:
            notes = "; ".join(text for text in (row["what"], row["worst"]) if text)
            held = f"{row['passed']:,} of {row['count']:,}"
            lines.append(f"| {row['bar']} | {held} | {notes.replace('|', '/')} |")
    places = {
        f"Python {e['python']}, NumPy {e['numpy']}, {e['cores']} cores"
        for e in (document["environment"] for document in found)
    }
    return "\n".join([*lines, "", f"Measured on {'; '.join(sorted(places))}, no GPU.", ""])


def section(text: str) -> str:
    """Return what stands between the marks."""
    return text.partition(START)[2].partition(END)[0]


def main() -> int:
    found = documents()
    quick = [document["title"] for document in found if document["quick"]]
    if quick:
        print(f"not the full length: {', '.join(quick)}", file=sys.stderr)
        return 1
    text = README.read_text(encoding="utf-8")
    before, mark, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (mark and end):
        print(f"{README.name} lacks the marks of the table", file=sys.stderr)
        return 1
    README.write_text(before + mark + render(found) + end + after, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
