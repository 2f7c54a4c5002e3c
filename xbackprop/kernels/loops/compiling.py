"""How the loops are compiled: sequential, without the GIL, kept on disk where that is possible."""

from collections.abc import Callable
from typing import Any

from numba import njit

# Sums in any order, as NumPy's are.
SUM = ("reassoc", "contract", "nsz")


def loop(*fastmath: str) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that lets numba compile a function.

    Parameters
    ----------
    *fastmath : str
        What LLVM may do with the arithmetic: ``contract`` for fused products and sums, ``reassoc``
        and ``nsz`` for sums in another order, ``nnan`` where there is no NaN.

    Returns
    -------
    callable
        Division by zero gives infinity in what it compiles; an exception would keep LLVM from
        vectorizing.
    """
    options: dict[str, Any] = {
        "error_model": "numpy",
        "nogil": True,
        "fastmath": set(fastmath) or False,
    }

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder can be written: compiled anew in every process
            return njit(**options)(function)

    return compiled
