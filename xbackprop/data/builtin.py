"""Data sets by name, which need no file."""

import os
from importlib import resources
from typing import Any

import numpy as np

from xbackprop.data.errors import DataError
from xbackprop.data.files import refuse_mistyped_name
from xbackprop.data.images import check_pixel_dtype, split_images
from xbackprop.data.mnist import load_mnist_5k
from xbackprop.data.splits import Split
from xbackprop.data.tables import EXTENSIONS, load_table


def load_digits(*, flatten: bool = True, dtype: Any = np.float32) -> Split:
    """Return the UCI handwritten digits: 1,437 training and 360 test images of 8 x 8 pixels.

    The split is fixed and stratified by digit; it does not depend on NumPy's version.

    Parameters
    ----------
    flatten : bool, default True
        Give each image as a row of 64 features; False gives (samples, 1, 8, 8).
    dtype : dtype, default float32
        Floating-point dtype of the pixels, which are scaled to 0 .. 1.

    Returns
    -------
    Split
        Labels are int64.

    References
    ----------
    Alpaydin, E. & Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Machine
    Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0. ``DIGITS.md`` beside this
    file says what was changed.

    Examples
    --------
    >>> load_digits()
    Split('digits', 10 classes, x_train (1437, 64), x_test (360, 64), float32)
    """
    pixel_dtype = check_pixel_dtype(dtype)
    packaged = resources.files(__package__).joinpath("digits.npz")
    with packaged.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels, test = arrays["images"], arrays["labels"], arrays["test_indices"]
    # Sixteenths are exact in every floating-point dtype, so the order of cast and division is free.
    images = (images / 16.0).astype(pixel_dtype)
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[test] = True
    return split_images(images, labels, is_test, flatten=flatten, name="digits")


_LOADERS = {"digits": load_digits, "mnist-5k": load_mnist_5k}
BUILTIN_NAMES = tuple(_LOADERS)


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    target: str | None = None,
    features: list[str] | None = None,
    regression: bool = False,
    test_size: float | None = None,
    stratify: bool | None = None,
    rng: int | np.random.Generator | None = None,
    delimiter: str | None = None,
    flatten: bool = True,
) -> Split:
    """Return a built-in data set by its name, or a table by its path.

    Parameters
    ----------
    name_or_path : str or path
        ``"digits"``, ``"mnist-5k"``, or the path of a ``.csv`` or ``.npz`` file.
    target, features, regression, test_size, stratify, rng, delimiter
        As for :func:`load_table`. A built-in set has all of them fixed and refuses them.
    flatten : bool, default True
        Give the images of a built-in set as rows of features; False gives (samples, channels,
        height, width). A table is as its file has it.

    Returns
    -------
    Split

    Raises
    ------
    DataError
        For an unknown name (the message lists the built-in ones) and whatever is wrong with a file.
    """
    options = {
        "target": target,
        "features": features,
        "regression": regression or None,
        "test_size": test_size,
        "stratify": stratify,
        "rng": rng,
        "delimiter": delimiter,
    }
    if isinstance(name_or_path, str) and name_or_path in BUILTIN_NAMES:
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise DataError(
                f"The built-in data set {name_or_path!r} has a fixed target and split; "
                f"leave out {', '.join(given)}."
            )
        return _LOADERS[name_or_path](flatten=flatten)
    refuse_mistyped_name(name_or_path, "data set", BUILTIN_NAMES, EXTENSIONS)
    return load_table(
        name_or_path,
        target=target,
        features=features,
        regression=regression,
        test_size=test_size,
        stratify=stratify,
        rng=rng,
        delimiter=delimiter,
    )
