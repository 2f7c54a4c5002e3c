"""The network and the optimizer that the options of ``xbackprop train`` describe."""

from collections.abc import Callable

import numpy as np

from xbackprop import nn, optim
from xbackprop.cli.errors import CommandError
from xbackprop.cli.options import TrainOptions
from xbackprop.cli.tasks import Task

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
) -> nn.Sequential:
    """Return linear layers with activations between them, on the default device.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of one input; more than one axis is flattened first.
    options : TrainOptions
        Widths and activation.
    task : Task
        Number and kind of the outputs.
    rng : numpy.random.Generator
        Draws the initial weights.

    Returns
    -------
    Sequential

    Raises
    ------
    CommandError
        When weights of these shapes do not fit into memory.
    """
    layers: list[nn.Module] = [nn.Flatten()] if len(sample_shape) > 1 else []
    width = int(np.prod(sample_shape))
    try:
        for hidden in options.hidden:
            layers += [nn.Linear(width, hidden, rng=rng), ACTIVATIONS[options.activation]()]
            width = hidden
        layers.append(nn.Linear(width, task.outputs, rng=rng))
    except (MemoryError, ValueError, OverflowError) as error:  # NumPy's, by how far it is too much
        widths = ",".join(map(str, options.hidden))
        raise CommandError(f"--hidden {widths}: the weights do not fit into memory") from error
    if task.has_probabilities:
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


def describe_network(sample_shape: tuple[int, ...], options: TrainOptions, task: Task) -> str:
    """Return the network in a line: ``64 -> 256 relu -> 10``."""
    parts = [" x ".join(map(str, sample_shape))]
    parts += [f"{width} {options.activation}" for width in options.hidden]
    parts.append(f"{task.outputs} sigmoid" if task.has_probabilities else str(task.outputs))
    return " -> ".join(parts)


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
    return OPTIMIZERS[options.optimizer](model.parameters(), lr=lr)


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
        return 2e-3
    if task.loss_name == "cross-entropy":
        return 0.3
    if task.loss_name == "half-squared-error":
        return 0.02
    return (0.01 if task.loss_name == "mse" else 0.3) * task.outputs
