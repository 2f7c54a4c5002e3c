"""Matrix products over the last axes, always as one two-dimensional product."""

from xbackprop.backend.array_module import Array


def flatten_rows(x: Array) -> Array:
    """View ``(..., n)`` as ``(rows, n)``; a single 1-D sample becomes one row.

    CuPy's products beyond two dimensions copy transposes, and NumPy's leave BLAS, so layers flatten
    their leading axes first.
    """
    return x if x.ndim == 2 else x.reshape(_row_count(x.shape), x.shape[-1])


def _row_count(shape: tuple[int, ...]) -> int:
    # Counted, since reshape(-1, n) cannot infer it when a batch is empty.
    rows = 1
    for length in shape[:-1]:
        rows *= length
    return rows


def dot_rows(x: Array, matrix: Array) -> Array:
    """Multiply the rows of ``x`` ``(..., n)`` by ``matrix`` ``(n, m)``; gives ``(..., m)``."""
    if x.ndim <= 2:
        return x.dot(matrix)
    return flatten_rows(x).dot(matrix).reshape(*x.shape[:-1], matrix.shape[1])
