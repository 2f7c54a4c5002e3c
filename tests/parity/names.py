"""Which layer, loss, optimizer or schedule a test compares with PyTorch."""

import functools
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.docs.entries import entries

OTHERS = "others"


@functools.cache
def families() -> dict[str, str]:
    return {entry.name: entry.family for entry in entries() if not entry.is_base}


def modules_compared(item: pytest.Item) -> list[str]:
    """What `@pytest.mark.torch_parity("Linear")` names, else what the test's row makes."""
    named = [name for mark in item.iter_markers("torch_parity") for name in mark.args]
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec else ()
    found = named or [name for value in values if (name := made_by(value)) in families()]
    return found or [item.name.partition("[")[0]]


def made_by(value: Any) -> str:
    """The class that a row of a table of cases makes, or the name itself."""
    if isinstance(value, str):
        return value
    if hasattr(value, "cls"):  # rows of optimizers say it
        return value.cls
    return made_by_case(value) if callable(getattr(value, "make", None)) else ""


@functools.cache
def made_by_case(case: Any) -> str:
    with xb.use_device("cpu"):
        if not hasattr(case, "optimizer"):  # a row of a layer or loss, else of a schedule
            return type(case.make()).__name__
        make_optimizer = getattr(xb.optim, case.optimizer)
        groups = [{"params": [xb.Parameter(np.zeros(1))], "lr": lr} for lr in (0.1, 0.2)]
        return type(case.make(xb.optim.lr_scheduler, make_optimizer(groups), -1)).__name__
