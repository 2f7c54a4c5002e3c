"""scikit-learn's perceptron and ours, called alike: fit, digits with defaults, predict; W7."""

import warnings

import contest
import numpy as np

SAMPLES, FEATURES, HIDDEN, CLASSES = 10_000, 784, (512, 512), 10
BATCH, EPOCHS = 128, 3
PRODUCTS = FEATURES * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1] * CLASSES
UPDATES = EPOCHS * -(-SAMPLES // BATCH)
DIGITS, DIGITS_PRODUCTS = 1797, 64 * 100 + 100 * 10
# One call takes seconds, and compiles nothing after the first; the losses of 3 epochs agree.
COMMON = {
    "checked": (1,),
    "warm_up": 0,
    "has_memory_target": True,
    "memory_peer": "scikit-learn",
}


def made(dtype):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((SAMPLES, FEATURES), dtype)
    return x, (x @ rng.standard_normal((FEATURES, CLASSES), dtype)).argmax(axis=1)


def digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def scikit_learn():
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier


def xbackprop():
    from xbackprop.sklearn import MLPClassifier

    return MLPClassifier


def fitted(estimator, data, **options):
    """Return a step that fits anew and returns the last loss."""
    make, (x, y) = estimator(), data()
    warnings.simplefilter("ignore")  # it has not converged, nor is it to
    make(**{**options, "max_iter": 1}).fit(x[:256], y[:256])  # so that all is imported
    return lambda: make(random_state=0, **options).fit(x, y).loss_


def predicted(estimator, dtype):
    make, (x, y) = estimator(), made(dtype)
    warnings.simplefilter("ignore")
    model = make(HIDDEN, batch_size=BATCH, max_iter=1, random_state=0).fit(x, y)
    return lambda: model.predict_proba(x)


def contestants(form, *given, **options):
    return {
        "xbackprop": lambda: form(xbackprop, *given, **options),
        "scikit-learn": lambda: form(scikit_learn, *given, **options),
    }


def fit(dtype, must):
    name, size = np.dtype(dtype).name, np.dtype(dtype).itemsize
    options = {"batch_size": BATCH, "max_iter": EPOCHS, "hidden_layer_sizes": HIDDEN}
    return contest.Workload(
        name=f"w7_fit_{name}",
        title=f"W7: fit of {HIDDEN} on {SAMPLES} x {FEATURES}, {EPOCHS} epochs, batch {BATCH}, "
        f"Adam, {name}",
        contestants=contestants(fitted, lambda: made(dtype), **options),
        # Forward, gradient of the weights, and of the inputs but the first layer's.
        flops=2 * EPOCHS * SAMPLES * (3 * PRODUCTS - FEATURES * HIDDEN[0]) * size / 4,
        bytes_moved=UPDATES * size * PRODUCTS * (2 + 2 + 6),
        targets=(contest.Target("scikit-learn", must, must),),
        **COMMON,
    )


FIT_DIGITS = contest.Workload(
    name="w7_digits",
    title="W7: fit of scikit-learn's digits, every parameter at its default, float64",
    contestants=contestants(fitted, digits),
    flops=2 * 2 * 150 * DIGITS * (3 * DIGITS_PRODUCTS - 6400),  # about 150 epochs, float64
    bytes_moved=150 * 9 * 8 * DIGITS_PRODUCTS * 10,
    targets=(contest.Target("scikit-learn", 3, 3),),
    **COMMON,
)


def predict(dtype):
    name, size = np.dtype(dtype).name, np.dtype(dtype).itemsize
    return contest.Workload(
        name=f"w7_predict_{name}",
        title=f"W7: predict_proba of {HIDDEN} on {SAMPLES} x {FEATURES}, {name}",
        contestants=contestants(predicted, dtype),
        flops=2 * SAMPLES * PRODUCTS * size / 4,
        bytes_moved=size * (SAMPLES * FEATURES + PRODUCTS),
        targets=(contest.Target("scikit-learn", 1.5, 1.5),),
        figure=lambda probabilities: float(np.square(probabilities).sum()),
        **COMMON,
    )


if __name__ == "__main__":
    contest.main(
        __file__,
        fit(np.float32, 2.5),
        fit(np.float64, 1.8),
        FIT_DIGITS,
        predict(np.float32),
        predict(np.float64),
    )
