"""Labels out of range are seen on the host, before anything moves."""

import numpy as np
import pytest

from xbackprop.nn.losses import check_class_indices


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3, 9], r"label 3 at index \(2\).*expected 0 to 2"),
        ([0, -1], r"label -1 at index \(1\)"),
        ([[0, 1], [2, 7]], r"label 7 at index \(1, 1\)"),
        (np.array([0, 250], np.uint8), r"label 250 at index \(1\)"),
        ([0, -100], r"label -100 at index \(1\)"),
    ],
)
def test_labels_out_of_range(labels, message):
    with pytest.raises(ValueError, match=message):
        check_class_indices("loss", np.asarray(labels), 3, ignore_index=-7)


def test_labels_in_range():
    check_class_indices("loss", np.array([0, 1, 2]), 3)
    check_class_indices("loss", np.array([], np.int64), 3)
    check_class_indices("loss", np.array([0, -100, 2]), 3, ignore_index=-100)
