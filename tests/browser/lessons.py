"""Explanations of networks of several shapes."""

import itertools

import numpy as np

import xbackprop as xb


def lesson(*layers, hidden=xb.nn.Sigmoid):
    """Return the explanation of a network with these widths, its weights drawn."""
    rng = np.random.default_rng(0)
    parts = []
    for width, following in itertools.pairwise(layers):
        parts += [hidden()] if parts else []
        parts.append(xb.nn.Linear(width, following, dtype=np.float64, device="cpu", rng=rng))
    model = xb.nn.Sequential(*parts)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.5)
    x, y = list(rng.normal(size=layers[0])), [1.0] * layers[-1]
    return xb.observe.explain(model, xb.nn.HalfSquaredError(), x, y, optimizer)
