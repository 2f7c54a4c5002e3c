"""What a run has reached, in words."""

import math

import numpy as np

from xbackprop.cli.run import Run
from xbackprop.cli.tasks import TokenTask


def result_text(run: Run) -> str:
    """Return how good a run is on its test part.

    Parameters
    ----------
    run : Run
        With a trained network.

    Returns
    -------
    str
    """
    split = run.split
    if isinstance(run.task, TokenTask):
        loss = run.trainer.evaluate(split.x_test, split.y_test, batch_size=16).loss
        perplexity = math.exp(min(loss, 700.0))
        return f"loss {loss:.4f} nats a token (perplexity {perplexity:.4g})"
    describe = accuracy_text if split.classes is not None else error_text
    return describe(split.y_test, predict_test(run))


def predict_test(run: Run) -> np.ndarray:
    """Return classes, or quantities in their own units, for the test part."""
    output = run.trainer.predict(run.inputs(run.split.x_test))
    if run.task.num_classes is not None:
        return np.asarray(run.task.decode(output))
    return output if run.y_scaling is None else run.y_scaling.undo(output)


def accuracy_text(y: np.ndarray, predicted: np.ndarray) -> str:
    """Return the share of right answers in words."""
    right = int((predicted == y).sum())
    return f"accuracy {100 * right / len(y):.2f} % ({right} of {len(y)})"


def error_text(y: np.ndarray, predicted: np.ndarray) -> str:
    """Return the root mean square error, and the share of the variance that is explained."""
    truth = y.astype(np.float64)
    mean_square = float(np.square(predicted - truth).mean())
    variance = float(truth.var(axis=0).mean())
    text = f"error {mean_square**0.5:.5g} (root mean square"
    return f"{text}, R2 {1 - mean_square / variance:.4f})" if variance > 0 else f"{text})"
