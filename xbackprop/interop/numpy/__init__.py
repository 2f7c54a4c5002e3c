"""Networks as one readable Python file that needs NumPy only: forward and backward."""

from xbackprop.interop.numpy.program import save_numpy

__all__ = ["save_numpy"]
