"""What is drawn of a run when it ends."""

from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.cli.results import accuracy_text, predict_test
from xbackprop.cli.run import Run
from xbackprop.cli.run_folder import CONFUSION, CURVES, FEATURES, FILTERS, WORST, writing
from xbackprop.dispatch import OpCall, observe
from xbackprop.training.metrics import confusion_matrix

LOSS_LABELS = {
    "cross-entropy": "cross-entropy (nats)",
    "bce-with-logits": "binary cross-entropy (nats)",
    "bce": "binary cross-entropy (nats)",
    "mse": "mean squared error",
    "half-squared-error": "half squared error",
}
_WORST_SAMPLES = 20


def draw_run(run: Run) -> str | None:
    """Draw the plots of a run.

    Parameters
    ----------
    run : Run
        At its end.

    Returns
    -------
    str or None
        Why there are none.

    Raises
    ------
    CommandError
        When the disk refuses.
    """
    try:
        _draw_metrics(run)
        if run.options.model in ("cnn", "resnet"):
            _draw_images(run)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        reason = "matplotlib is not installed" if is_missing else f"matplotlib fails ({error})"
        return f"no plots  {reason}; this installs it: pip install matplotlib"
    return None


def _draw_metrics(run: Run) -> None:
    from xbackprop.cli.plots import draw_confusion, draw_curves

    split, history, folder = run.split, run.trainer.history, run.folder
    name = f"{split.name}: {run.options.loss}, {run.options.optimizer}, seed {run.options.seed}"
    if history:
        label = LOSS_LABELS[run.task.loss_name]
        with writing(folder / CURVES):
            draw_curves(history, folder / CURVES, title=name, loss_label=label)
    if split.classes is not None:
        predicted = predict_test(run)
        matrix = confusion_matrix(split.y_test, predicted, len(split.classes))
        title = f"{split.name}: test {accuracy_text(split.y_test, predicted)}"
        names = [str(label) for label in split.classes]
        with writing(folder / CONFUSION):
            draw_confusion(matrix, names, folder / CONFUSION, title=title)


def _draw_images(run: Run) -> None:
    """Draw what a network of convolutions looks for, what it finds, and where it fails."""
    from xbackprop.cli.image_plots import draw_features, draw_filters, draw_samples

    split, folder = run.split, run.folder
    first = next(layer for layer in run.trainer.model.modules() if isinstance(layer, nn.Conv2d))
    with writing(folder / FILTERS):
        draw_filters(to_host(first.weight.data), folder / FILTERS)
    inputs = run.inputs(split.x_test)
    maps = feature_maps(run.trainer.model, inputs[:1])
    if maps:  # none where every image is one pixel high or wide
        with writing(folder / FEATURES):
            draw_features(split.x_test[0], maps, folder / FEATURES)
    losses = sample_losses(run)
    worst = np.argsort(-losses, kind="stable")[:_WORST_SAMPLES]
    predicted, truth = predict_test(run), split.y_test
    labels = [
        f"{_label(run, truth[place])} taken for {_label(run, predicted[place])}"
        if split.classes is None or truth[place] != predicted[place]
        else f"{_label(run, truth[place])}, unsure"
        for place in worst
    ]
    title = f"{split.name}: test samples with the largest loss"
    with writing(folder / WORST):
        draw_samples(split.x_test[worst], labels, losses[worst], folder / WORST, title=title)


def _label(run: Run, value: Any) -> str:
    if run.split.classes is not None:
        return str(run.split.classes[int(value)])
    return ", ".join(f"{number:.3g}" for number in np.ravel(value))


class _Images:
    """An observer that keeps the last output of an activation in each size of image."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, ...], np.ndarray] = {}

    def before(self, call: OpCall) -> None:
        """Nothing to do."""

    def after(self, call: OpCall, result: Any) -> None:
        """Keep what is an image and comes out of an activation."""
        if call.op.name in ("relu_forward", "sigmoid_forward", "tanh_forward"):
            output = result[0]
            if output.ndim == 4 and min(output.shape[2:]) > 1:
                self.found[output.shape[2:]] = to_host(output)


def feature_maps(model: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """Return what the activations of a network make of one sample.

    Parameters
    ----------
    model : Module
        With convolutions.
    x : numpy.ndarray, shape (1, channels, height, width)
        The sample.

    Returns
    -------
    list of numpy.ndarray, shape (channels, height, width)
        For each size of image the last one, from the first to the last layer.
    """
    watcher, was_training = _Images(), model.training
    model.eval()
    with observe(watcher):
        model(to_device(x, model.device))
    model.train(was_training)
    return [array[0] for array in watcher.found.values()]


def sample_losses(run: Run) -> np.ndarray:
    """Return the loss of each test sample.

    Parameters
    ----------
    run : Run
        With data and a network.

    Returns
    -------
    numpy.ndarray, shape (samples,)
    """
    output = run.trainer.predict(run.inputs(run.split.x_test))
    target = run.targets(run.split.y_test)
    loss_fn = run.task.make_loss()
    return np.array(
        [
            float(loss_fn(output[place : place + 1], target[place : place + 1]))
            for place in range(len(output))
        ]
    )
