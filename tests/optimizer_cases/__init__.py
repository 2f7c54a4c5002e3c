"""THE table of optimizers: one row per optimizer, and per option that changes what it computes.

`test_optim.py` runs every row on every device and beside the textbook's formulas in plain NumPy,
`test_optim_parity.py` beside PyTorch.
"""

from optimizer_cases.case import OptimizerCase
from optimizer_cases.course import course, gradients, initial, run_ours
from optimizer_cases.rows import OPTIMIZERS
from optimizer_cases.textbook import run_textbook

__all__ = [
    "OPTIMIZERS",
    "OptimizerCase",
    "course",
    "gradients",
    "initial",
    "run_ours",
    "run_textbook",
]
