"""PyTorch where it is installed; without it a visible skip, or a failure where it is required."""

import importlib.util
import os
from typing import Any

import pytest


def import_torch() -> Any:
    """Return the module, or end the test as XBACKPROP_TEST_REQUIRE wants it."""
    if importlib.util.find_spec("torch") is None:
        required = os.environ.get("XBACKPROP_TEST_REQUIRE", "").replace(",", " ").split()
        if "torch" in required:
            pytest.fail("XBACKPROP_TEST_REQUIRE lists torch, and PyTorch is not installed")
        pytest.skip("PyTorch is not installed; nox -s torch_parity installs it")
    import torch

    return torch
