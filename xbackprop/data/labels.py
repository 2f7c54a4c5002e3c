"""Class labels are checked on the host, before anything moves."""

import numpy as np

from xbackprop.data.arrays import as_host_array


def check_labels(y: object, num_classes: int, *, ignore_index: int | None = None) -> None:
    """Refuse labels that are not class indices ``0 .. num_classes - 1``.

    A GPU does not raise on an index out of range (CuPy wraps it), so this is asked of the host
    array before it is uploaded.

    Parameters
    ----------
    y : array_like of int
        Labels of any shape, on the host.
    num_classes : int
        Number of classes, at least 1.
    ignore_index : int, optional
        One more value that is allowed anywhere, such as the -100 of cross-entropy.

    Raises
    ------
    ValueError
        Names the index and the value of the first offending label and the valid range.
    TypeError
        When the labels are not integers.

    Examples
    --------
    >>> check_labels([0, 2, 1], 3)
    >>> check_labels([0, 3, 1], 3)
    Traceback (most recent call last):
    ...
    ValueError: Expected labels from 0 to 2 (3 classes); got y[1] = 3.
    """
    labels = as_host_array(y, "y", allow_empty=True)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}.")
    if labels.dtype.kind not in "iub":
        raise TypeError(
            f"Expected class labels of an integer dtype; got y of {labels.dtype}. "
            "Convert them with .astype(np.int64)."
        )
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    wrong = (labels < 0) | (labels >= num_classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if wrong.any():
        index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        where = ", ".join(str(int(i)) for i in index)
        raise ValueError(
            f"Expected labels from 0 to {num_classes - 1} ({num_classes} classes); "
            f"got y[{where}] = {labels[index]}."
        )
