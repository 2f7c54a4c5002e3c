"""Rows of losses, a file per theme."""

from layer_cases.losses.binary import BINARY
from layer_cases.losses.classes import CLASSES
from layer_cases.losses.cross_entropy import CROSS_ENTROPY
from layer_cases.losses.ctc import CTC
from layer_cases.losses.distances import DISTANCES
from layer_cases.losses.likelihood import LIKELIHOOD
from layer_cases.losses.margins import MARGINS
from layer_cases.losses.regression import REGRESSION
from layer_cases.losses.tokens import TOKENS

LOSSES = [
    *REGRESSION,
    *CROSS_ENTROPY,
    *TOKENS,
    *CLASSES,
    *BINARY,
    *LIKELIHOOD,
    *MARGINS,
    *DISTANCES,
    *CTC,
]
