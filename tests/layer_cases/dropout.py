"""Rows of dropout."""

from layer_cases.case import Case, normal
from xbackprop import nn

IMAGES = normal(2, 4, 2, 3)

DROPOUT = [
    Case("Dropout p=0", lambda: nn.Dropout(0.0, rng=0), normal(4, 3), lambda t: t.nn.Dropout(0.0)),
    Case(
        "Dropout p=0.3",
        lambda: nn.Dropout(0.3, rng=0),
        normal(4, 3),
        lambda t: t.nn.Dropout(0.3),
        is_random=True,
    ),
    Case("Dropout p=1", lambda: nn.Dropout(1.0, rng=0), normal(4, 3), lambda t: t.nn.Dropout(1.0)),
    *(
        Case(
            f"{name} p={p}",
            lambda name=name, p=p: getattr(nn, name)(p, rng=0),
            inputs,
            lambda t, name=name, p=p: getattr(t.nn, name)(p),
            is_random=p == 0.4,
        )
        for name, inputs in (
            ("Dropout1d", normal(3, 4, 2)),
            ("Dropout2d", IMAGES),
            ("Dropout3d", normal(2, 4, 2, 1, 2)),
            ("AlphaDropout", normal(4, 3)),
            ("FeatureAlphaDropout", IMAGES),
        )
        for p in (0.0, 0.4, 1.0)
    ),
    Case(
        "Dropout1d of one sample",
        lambda: nn.Dropout1d(0.4, rng=0),
        normal(6, 3),
        lambda t: t.nn.Dropout1d(0.4),
        has_batch=False,
        is_random=True,
    ),
    Case(
        "Dropout3d of one sample",
        lambda: nn.Dropout3d(0.4, rng=0),
        normal(6, 2, 1, 2),
        lambda t: t.nn.Dropout3d(0.4),
        has_batch=False,
        is_random=True,
    ),
    Case(
        "FeatureAlphaDropout of features",
        lambda: nn.FeatureAlphaDropout(0.4, rng=0),
        normal(4, 6),
        lambda t: t.nn.FeatureAlphaDropout(0.4),
        is_random=True,
    ),
]
