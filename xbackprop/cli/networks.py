"""The network and the optimizer that the options of ``xbackprop train`` describe."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop import nn, optim
from xbackprop.cli.choices import WARMUP
from xbackprop.cli.errors import CommandError
from xbackprop.cli.options import TrainOptions
from xbackprop.cli.tasks import Task, TokenTask
from xbackprop.data import Split

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "sgd": optim.SGD,
}


def make_network(
    sample_shape: tuple[int, ...], options: TrainOptions, task: Task, rng: np.random.Generator
) -> nn.Module:
    """Return the network that was asked for, on the default device.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of one input.
    options : TrainOptions
        Kind of the network, and its sizes.
    task : Task
        Number and kind of the outputs.
    rng : numpy.random.Generator
        Draws the initial weights.

    Returns
    -------
    Module

    Raises
    ------
    CommandError
        When weights of these shapes do not fit into memory.
    """
    try:
        layers = _MAKERS[options.model](sample_shape, options, task.outputs, rng)
    except (MemoryError, ValueError, OverflowError) as error:  # NumPy's, by how far it is too much
        raise CommandError(
            f"{_given_sizes(options)}: the weights do not fit into memory"
        ) from error
    if task.has_probabilities:
        layers.append(nn.Sigmoid())
    is_whole = len(layers) == 1 and isinstance(layers[0], (nn.ResNet, nn.GPT))
    return layers[0] if is_whole else nn.Sequential(*layers)


def _given_sizes(options: TrainOptions) -> str:
    sizes = {
        "--channels": ",".join(map(str, options.channels)),
        "--hidden": ",".join(map(str, options.hidden)),
        "--layers": options.layers,
        "--width": options.width,
    }
    return " ".join(f"{name} {size}" for name, size in sizes.items() if size)


def _make_mlp(
    sample_shape: tuple[int, ...], options: TrainOptions, outputs: int, rng: np.random.Generator
) -> list[nn.Module]:
    """Return linear layers with activations between them; more than one axis is flattened first."""
    flatten: list[nn.Module] = [nn.Flatten()] if len(sample_shape) > 1 else []
    return flatten + _make_dense(int(np.prod(sample_shape)), options, options.dropout, outputs, rng)


def _make_dense(
    width: int, options: TrainOptions, dropout: float, outputs: int, rng: np.random.Generator
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for hidden in options.hidden:
        layers += [nn.Linear(width, hidden, rng=rng), ACTIVATIONS[options.activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout, rng=rng))
        width = hidden
    return [*layers, nn.Linear(width, outputs, rng=rng)]


def _make_cnn(
    sample_shape: tuple[int, ...], options: TrainOptions, outputs: int, rng: np.random.Generator
) -> list[nn.Module]:
    """Return convolutions, each with normalization and a pooling that halves height and width."""
    layers: list[nn.Module] = []
    inner, *sides = sample_shape
    size = options.kernel_size or 1
    for channels in options.channels:
        layers += [
            nn.Conv2d(inner, channels, size, padding=size // 2, bias=False, rng=rng),
            nn.BatchNorm2d(channels),
            ACTIVATIONS[options.activation](),
        ]
        if min(sides) > 1:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        inner = channels
    layers.append(nn.Flatten())
    head = _make_dense(inner * int(np.prod(sides)), options, 0.0, outputs, rng)
    dropout = [nn.Dropout(options.dropout, rng=rng)] if options.dropout else []
    return [*layers, *head[:-1], *dropout, head[-1]]


def _make_resnet(
    sample_shape: tuple[int, ...], options: TrainOptions, outputs: int, rng: np.random.Generator
) -> list[nn.Module]:
    """Return a ResNet-18 with the beginning for small images where they are small."""
    channels, *sides = sample_shape
    is_small = min(sides) < 64
    return [
        nn.ResNet(
            num_classes=outputs,
            in_channels=channels,
            width=options.channels[0],
            small_images=is_small,
            rng=rng,
        )
    ]


def _make_gpt(
    sample_shape: tuple[int, ...], options: TrainOptions, outputs: int, rng: np.random.Generator
) -> list[nn.Module]:
    sizes = (options.layers or 1, options.heads or 1, options.width or 1)
    if sizes[2] % sizes[1]:
        raise CommandError(f"--heads {sizes[1]}: expected a divisor of the width, {sizes[2]}")
    (context,) = sample_shape
    return [nn.GPT(outputs, context, *sizes, options.dropout, rng=rng)]


_MAKERS: dict[str, Callable[..., list[nn.Module]]] = {
    "mlp": _make_mlp,
    "cnn": _make_cnn,
    "resnet": _make_resnet,
    "gpt": _make_gpt,
}


def describe_network(sample_shape: tuple[int, ...], options: TrainOptions, task: Task) -> str:
    """Return the network in a line: ``64 -> 256 relu -> 10``."""
    if options.model == "gpt":
        return (
            f"gpt of {options.layers} layers, {options.heads} heads, width {options.width}, "
            f"context {options.context}"
        )
    parts = [" x ".join(map(str, sample_shape))]
    if options.model == "resnet":
        parts.append(f"resnet of 18 layers, {options.channels[0]} channels in its first stage")
    elif options.model == "cnn":
        side = options.kernel_size
        parts += [
            f"{channels} of {side} x {side} {options.activation}" for channels in options.channels
        ]
    parts += [f"{width} {options.activation}" for width in options.hidden]
    parts.append(f"{task.outputs} sigmoid" if task.has_probabilities else str(task.outputs))
    return " -> ".join(parts)


def refuse_single_samples(split: Split, options: TrainOptions) -> None:
    """Refuse batches that leave one value for a normalization, of which it would make 0.

    Parameters
    ----------
    split : Split
        The data.
    options : TrainOptions
        Network and size of the batches.

    Raises
    ------
    CommandError
        When the last batch is one sample, and the last images of the network are one pixel.
    """
    samples = len(split.x_train)
    last = samples % options.batch_size or options.batch_size
    if options.model not in ("cnn", "resnet") or min(last, samples) > 1:
        return
    sides = list(split.x_train.shape[2:])
    for _ in options.channels[1:]:
        sides = [side // 2 for side in sides] if min(sides) > 1 else sides
    if options.model == "resnet":
        sides = [math.ceil(side / 8) if min(sides) < 64 else side for side in sides]
    if math.prod(sides) == 1:
        raise CommandError(
            f"--batch-size {options.batch_size}: leaves one of {samples} samples for the last "
            "batch, and one sample cannot be normalized. Take another size"
        )


def make_optimizer(model: nn.Module, options: TrainOptions, task: Task) -> optim.Optimizer:
    """Return the optimizer of a network's parameters.

    Parameters
    ----------
    model : Module
        The network.
    options : TrainOptions
        Optimizer and learning rate.
    task : Task
        Decides on the learning rate when none is given.

    Returns
    -------
    Optimizer
    """
    lr = default_learning_rate(options.optimizer, task) if options.lr is None else options.lr
    given: dict[str, Any] = {"lr": lr}
    if options.weight_decay is not None:
        given["weight_decay"] = options.weight_decay
    if not isinstance(model, nn.GPT):
        return OPTIMIZERS[options.optimizer](model.parameters(), **given)
    if options.optimizer != "sgd":
        given["betas"] = (0.9, 0.99)  # few tokens a step: a longer mean of squares
    groups = model.parameter_groups(given.get("weight_decay", 0.0))
    return OPTIMIZERS[options.optimizer](groups, **given)


def make_schedule(
    optimizer: optim.Optimizer, options: TrainOptions, samples: int
) -> optim.lr_scheduler.LRScheduler | None:
    """Return the schedule of the learning rate, which moves at every update.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rate it is.
    options : TrainOptions
        Schedule, epochs and batches.
    samples : int
        Of the training part.

    Returns
    -------
    LRScheduler or None
        None for a learning rate that is constant from the beginning.
    """
    warmup = options.warmup or 0
    if options.schedule == "constant":
        if not warmup:
            return None
        return optim.lr_scheduler.WarmupStableDecayLR(optimizer, warmup, 0, 0, 1.0)
    rest = count_updates(options, samples) - warmup
    return optim.lr_scheduler.WarmupStableDecayLR(optimizer, warmup, 0, rest, decay="cosine")


def count_updates(options: TrainOptions, samples: int) -> int:
    """Return how many updates a run has.

    Parameters
    ----------
    options : TrainOptions
        Epochs and batches.
    samples : int
        Of the training part.

    Returns
    -------
    int
    """
    batches = math.ceil(samples / options.batch_size)
    return math.ceil(batches / options.accumulate) * options.epochs


def find_warmup(options: TrainOptions, samples: int) -> int:
    """Return over how many updates the learning rate rises.

    Parameters
    ----------
    options : TrainOptions
        What was asked for; None leaves it to the model.
    samples : int
        Of the training part.

    Returns
    -------
    int
        For a gpt ``WARMUP`` where nothing was asked for, in a short run a tenth of it.

    Raises
    ------
    CommandError
        For more updates than the run has.
    """
    updates = count_updates(options, samples)
    if options.warmup is None:
        return min(WARMUP, updates // 10) if options.model == "gpt" else 0
    if options.schedule != "constant" and options.warmup > updates:
        raise CommandError(
            f"--warmup {options.warmup}: expected at most {updates}, which is how many updates the "
            "run has"
        )
    return options.warmup


def default_learning_rate(optimizer: str, task: Task) -> float:
    """Return a learning rate that trains the digits well, and other data of that scale.

    Parameters
    ----------
    optimizer : str
        Adam's steps do not depend on the scale of the loss; those of ``sgd`` do.
    task : Task
        ``mse`` and the binary cross-entropies average over the outputs too, so each output's
        share of the gradient shrinks with their number, and the rate grows with it.

    Returns
    -------
    float
    """
    if optimizer != "sgd":
        return 1e-3 if isinstance(task, TokenTask) else 2e-3
    if task.loss_name == "cross-entropy":
        return 0.3
    if task.loss_name == "half-squared-error":
        return 0.02
    return (0.01 if task.loss_name == "mse" else 0.3) * task.outputs
