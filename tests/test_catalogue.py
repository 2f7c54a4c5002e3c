"""The catalogue of the documentation: what it lists, and that what it says is true."""

import doctest

import numpy as np
import pytest
from layer_cases import CASES

import xbackprop as xb
from xbackprop.docs.catalogue import missing, write
from xbackprop.docs.entries import entries, nn_families
from xbackprop.docs.examples_of_rows import example_of, shapes_of, with_results
from xbackprop.docs.facts import ops_of

ENTRIES = [entry for entry in entries() if not entry.is_base]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)

# What a reader does not find yet, with the reason. It may only shrink.
NOT_YET = {
    ("Sequential", "formula"): "computes what its modules compute",
    ("Recompute", "formula"): "computes what its module computes",
}


def test_everything_public_is_listed():
    listed = {entry.value for entry in entries()}
    assert set(xb.nn.catalogue().values()) <= listed
    assert {xb.optim.Optimizer, xb.optim.SGD, xb.optim.StepLR, xb.optim.clip_grad_norm_} <= listed
    assert len({entry.path for entry in entries()}) == len(entries())
    assert set(nn_families()) == set(xb.nn.__all__)
    assert {entry.name for entry in entries() if entry.is_base} >= {"Loss", "Optimizer"}
    assert all(family for family in nn_families().values())


def test_nothing_is_missing_but_what_is_listed():
    found = {(entry.name, what) for entry in ENTRIES for what in missing(entry)}
    assert found - set(NOT_YET) == set(), "write it, or say in NOT_YET why not"
    assert set(NOT_YET) - found == set(), "take these out of NOT_YET"


@every_entry
def test_example_made_of_a_row_is_a_doctest(entry):
    """It was made by running it; here it runs again, as a reader would."""
    text = example_of(entry)
    test = doctest.DocTestParser().get_doctest(text, {}, entry.name, None, 0)
    complaints = []
    with xb.use_device("cpu"):
        doctest.DocTestRunner(verbose=False).run(test, out=complaints.append)
    assert complaints == []


def test_example_that_fails_is_none():
    assert with_results(["xb.nn.Linear(-1, 2)"]) == ""
    assert with_results(["x = 2", "x + 1"]) == ">>> import xbackprop as xb\n>>> x = 2\n>>> x + 1\n3"


def test_ops_are_those_that_the_rows_call():
    """The catalogue reads them off the code; an observer sees what really runs."""
    listed = {entry.name: {op.name for op in ops_of(entry)} for entry in ENTRIES}
    for case in (case for case in CASES if case.is_plain):
        calls = Calls()
        module = case.make()
        arrays = case.inputs(np.random.default_rng(0))
        arrays = arrays if isinstance(arrays, tuple) else (arrays,)
        with xb.observe(calls):
            module.to(dtype="float64").forward(*arrays)
        if type(module).__name__ in listed and not list(module.children()):
            assert calls.names <= listed[type(module).__name__], case.name


class Calls:
    def __init__(self):
        self.names = set()

    def before(self, call):
        if call.depth == 0 and call.op.name.endswith("_forward"):
            self.names.add(call.op.name)

    def after(self, call, result):
        pass


def test_shapes_are_those_of_rows():
    (linear,) = (entry for entry in ENTRIES if entry.name == "Linear")
    assert ("(4, 3)", "(4, 2)") in shapes_of(linear)
    (loss,) = (entry for entry in ENTRIES if entry.name == "CrossEntropyLoss")
    assert ("(4, 3), (4,) int64", "()") in shapes_of(loss)


def test_pages_have_a_section_for_every_name(tmp_path):
    write(tmp_path)
    text = "\n".join(page.read_text(encoding="utf-8") for page in tmp_path.glob("*.rst"))
    for entry in entries():
        assert f"\n{entry.name}\n{'-' * len(entry.name)}\n" in text
        assert f":: {entry.path}\n" in text
    assert "| forward: ``output = x @ weight.T + bias``" in text
