"""How far two numbers that should be equal may lie apart: one table, by dtype."""

from typing import NamedTuple


class Tolerances(NamedTuple):
    """Allowed differences for one dtype, relative to magnitudes of about one and above.

    Parameters
    ----------
    reordered : float
        The same arithmetic in another order (other strides, another order of a sum): some tens of
        rounding errors, 1e-16 or 6e-8 each.
    peer : float
        The same mathematics by another implementation: its exp, log and tanh may differ by some
        units in the last place, and sums and cancellations multiply that.
    differences : float
        Central differences with a step of 1e-5: their truncation error is about 1e-10 and their
        rounding error 1e-16 / 1e-5; the rest is room for large third derivatives. NaN where the
        rounding error leaves nothing to compare.
    """

    reordered: float
    peer: float
    differences: float


TOLERANCES = {
    "float64": Tolerances(reordered=1e-13, peer=1e-9, differences=1e-7),
    "float32": Tolerances(reordered=2e-6, peer=1e-5, differences=float("nan")),
}
