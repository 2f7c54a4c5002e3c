"""Write the catalogue's pages: ``python -m xbackprop.docs.catalogue FOLDER``.

One page a family, one section a name: formulas, docstring, derivation, shapes, example.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from xbackprop.docs.entries import Entry, entries
from xbackprop.docs.examples_of_rows import example_of, shapes_of
from xbackprop.docs.facts import has_formula, has_reference, has_section, ops_of, parity_of

PYTORCH_PAGES = "https://docs.pytorch.org/docs/2.13/generated"


def missing(entry: Entry) -> list[str]:
    """Return what a reader of a class would look for and not find."""
    if not isinstance(entry.value, type):
        return []
    is_layer = entry.path.startswith("xbackprop.nn.")
    found = {
        "formula": has_formula(entry),
        "reference": has_reference(entry),
        "example": has_section(entry, "Examples") or bool(example_of(entry)),
        "shapes": not is_layer or bool(shapes_of(entry)),
    }
    return [what for what, is_there in found.items() if not is_there]


def section(entry: Entry) -> Iterator[str]:
    """Yield the lines of one name."""
    yield from ("", entry.name, "-" * len(entry.name), "")
    ops = ops_of(entry)
    for op in ops:
        if op.formula:
            direction = op.name.rpartition("_")[2]
            for part in op.formula.split("; "):
                yield f"| {direction}: ``{part}``"
    directive = "autoclass" if isinstance(entry.value, type) else "autofunction"
    yield from ("", f".. {directive}:: {entry.path}")
    yield from ("   :members:", "") if entry.is_base else ("",)
    for op in ops:
        if "\nNotes\n" in (inspect.getdoc(op.reference) or ""):  # the derivation
            yield from (f".. autofunction:: {op.reference.__module__}.{op.name}", "")
    if not entry.is_base:
        yield from shapes(entry)
        yield from example(entry)
        yield from comparison(entry)


def shapes(entry: Entry) -> Iterator[str]:
    """Yield a table of the shapes that the tests' rows have, for a layer or loss."""
    pairs = shapes_of(entry) if entry.path.startswith("xbackprop.nn.") else []
    if pairs:
        yield from (".. list-table::", "   :header-rows: 1", "   :align: left", "")
        yield from ("   * - inputs", "     - output")
        for inputs, output in pairs:
            yield from (f"   * - ``{inputs}``", f"     - ``{output}``")
        yield ""


def example(entry: Entry) -> Iterator[str]:
    """Yield an example made of a row, where the docstring has none."""
    text = "" if has_section(entry, "Examples") else example_of(entry)
    if text:
        yield from (".. code-block:: pycon", "")
        yield from (f"   {line}".rstrip() for line in text.splitlines())
        yield ""


def comparison(entry: Entry) -> Iterator[str]:
    """Yield what was compared with PyTorch, and where its page is."""
    row = parity_of(entry)
    if row.get("pytorch"):
        yield f"In PyTorch: `{row['pytorch']} <{PYTORCH_PAGES}/{row['pytorch']}.html>`__."
    if row.get("match"):
        compared = row["match"] + row["mismatch"]
        yield f"{row['match']} of {compared} comparisons with PyTorch match."
    lacking = missing(entry)
    if lacking:
        yield f"Not here yet: {', '.join(lacking)}."
    yield ""


def summary(entry: Entry) -> str:
    """Return the first line of the docstring."""
    return (inspect.getdoc(entry.value) or "").partition("\n")[0]


def overview(by_family: dict[str, list[Entry]]) -> Iterator[str]:
    """Yield the first page: every name with its formula in a line."""
    yield from ("Catalogue", "=========", "")
    yield "Names, arguments, defaults, state keys and numbers are PyTorch's where it has them."
    yield from ("", ".. toctree::", "   :hidden:", "")
    yield from (f"   {page_of(family)}" for family in by_family)
    for family, listed in by_family.items():
        title = title_of(family)
        yield from (
            "",
            title,
            "-" * len(title),
            "",
            ".. list-table::",
            "   :widths: 25 75",
            "   :width: 100%",
            "",
        )
        for entry in listed:
            yield from (f"   * - :py:obj:`{entry.name} <{entry.path}>`", f"     - {summary(entry)}")


def described_once(lines: list[str], described: set[str]) -> Iterator[str]:
    """Yield lines; an op that several layers share has its place in the index once."""
    for line in lines:
        yield line
        if line.startswith(".. autofunction:: "):
            if line in described:
                yield "   :no-index:"
            described.add(line)


def page_of(family: str) -> str:
    """Return a family's file name."""
    return re.sub(r"\W+", "_", family)


def title_of(family: str) -> str:
    """Return a family's heading."""
    return family[0].upper() + family[1:]


def write(folder: Path) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    by_family: dict[str, list[Entry]] = {}
    for entry in entries():
        by_family.setdefault(entry.family, []).append(entry)
    pages = {"index": list(overview(by_family))}
    for family, listed in by_family.items():
        title = title_of(family)
        lines = [title, "=" * len(title)]
        pages[page_of(family)] = lines + [line for entry in listed for line in section(entry)]
    described: set[str] = set()
    for name, lines in pages.items():
        text = "\n".join(described_once(lines, described)) + "\n"
        (folder / f"{name}.rst").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
