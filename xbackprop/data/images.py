"""Images of the built-in sets, in a training and a test part."""

from typing import Any

import numpy as np

from xbackprop.backend.half import is_float_dtype
from xbackprop.data.splits import Split


def check_pixel_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of pixels; refuse what is no floating point.

    Parameters
    ----------
    dtype : dtype
        What was asked for.

    Returns
    -------
    numpy.dtype

    Raises
    ------
    TypeError
        Names what was asked for.
    """
    pixel_dtype = np.dtype(dtype)
    if dtype is None or not is_float_dtype(pixel_dtype):
        raise TypeError(f"dtype expects a floating-point dtype such as np.float32; got {dtype!r}.")
    return pixel_dtype


def split_images(
    images: np.ndarray, labels: np.ndarray, is_test: np.ndarray, *, flatten: bool, name: str
) -> Split:
    """Return images of digits as a data set.

    Parameters
    ----------
    images : numpy.ndarray, shape (samples, height, width)
        Pixels of a float dtype.
    labels : numpy.ndarray of int, shape (samples,)
        Digits.
    is_test : numpy.ndarray of bool, shape (samples,)
        Which samples are held out.
    flatten : bool
        Give each image as a row of features; False gives (samples, 1, height, width).
    name : str
        Of the data set.

    Returns
    -------
    Split
        Labels are int64.
    """
    _, height, width = images.shape
    x = images.reshape(-1, height * width) if flatten else images[:, np.newaxis]
    y = labels.astype(np.int64)
    names = tuple(f"pixel_{row}_{column}" for row in range(height) for column in range(width))
    return Split(
        x_train=x[~is_test],
        y_train=y[~is_test],
        x_test=x[is_test],
        y_test=y[is_test],
        classes=tuple(range(10)),
        feature_names=names if flatten else (),
        name=name,
    )
