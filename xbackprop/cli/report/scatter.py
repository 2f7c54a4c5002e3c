"""Predicted quantities beside the true ones, as SVG."""

import numpy as np

from xbackprop.cli.report.axes import make_axis
from xbackprop.cli.report.lines import LARGE, draw_axes, svg

_MOST_DOTS = 1000


def scatter_chart(truth: np.ndarray, predicted: np.ndarray, label: str) -> str:
    """Return a chart of predictions above the truth, with the line of equality.

    Parameters
    ----------
    truth, predicted : numpy.ndarray of float, shape (samples,)
        Infinite predictions are left out.
    label : str
        For who cannot see it.

    Returns
    -------
    str
    """
    is_finite = np.isfinite(predicted)
    x, y = truth[is_finite], predicted[is_finite]
    chosen = np.linspace(0, len(x) - 1, min(_MOST_DOTS, len(x))).astype(int)
    x, y = x[chosen], y[chosen]
    both = [*x.tolist(), *y.tolist()]
    x_axis = make_axis(both, LARGE.left, LARGE.right, log=False)
    y_axis = make_axis(both, LARGE.bottom, LARGE.top, log=False)
    low, high = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
    parts = [
        *draw_axes(LARGE, x_axis.ticks(5), y_axis.ticks(5), "true"),
        f'<path class="guide" d="M{x_axis.place(low):.1f} {y_axis.place(low):.1f}'
        f'L{x_axis.place(high):.1f} {y_axis.place(high):.1f}"/>',
        *(
            f'<circle class="dot value" cx="{x_axis.place(a):.1f}" cy="{y_axis.place(b):.1f}" '
            'r="2.5" opacity="0.6"/>'
            for a, b in zip(x.tolist(), y.tolist(), strict=True)
        ),
    ]
    return svg(LARGE, label, parts)
