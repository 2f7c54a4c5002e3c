"""Loss and gradients of one batch of a penalized perceptron."""

from dataclasses import dataclass

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.transfer import to_host
from xbackprop.module import as_one_call
from xbackprop.nn import Sequential
from xbackprop.optim import Optimizer
from xbackprop.sklearn.at_once import WholePerceptron
from xbackprop.sklearn.losses import CanonicalLoss
from xbackprop.sklearn.network import weights_and_biases
from xbackprop.sklearn.optimizers import EpsilonHatAdam
from xbackprop.sklearn.rows import TrainingRows


@dataclass
class PenalizedNetwork:
    """A network, its loss, and the factor of ``|weights|^2 / (2 mass)`` that is added to it."""

    network: Sequential
    loss_fn: CanonicalLoss
    alpha: float

    def loss_and_gradients(
        self, x: Array, target: Array, weight: Array | None, mass: float
    ) -> Array:
        """Return the loss without its penalty, and add its gradients."""
        scores, saved = self.network.forward(x)
        loss, loss_saved = self.loss_fn.forward(scores, target, weight, mass)
        grad = self.loss_fn.backward(1.0, loss_saved)
        self.network.backward(grad, saved, input_grad=False)
        return loss

    def squares(self) -> Array:
        """Return the sum of the squares of all weights."""
        weights = [weight.data.reshape(-1) for weight in weights_and_biases(self.network)[0]]
        squares = [weight.dot(weight) for weight in weights]
        return sum(squares[1:], squares[0])

    def penalty(self, squares: Array, mass: float) -> Array:
        """Return what is added to the loss."""
        return squares * (0.5 * self.alpha / mass)

    def run_epoch(self, rows: TrainingRows, batch_size: int, optimizer: Optimizer) -> float:
        """Update on every batch; return the mean loss, the one number that is read back.

        The first group of the optimizer holds the penalized weights.
        """
        optimizer.zero_grad()
        optimizer.packed()  # so that the parameters have the arrays that they will have
        whole = WholePerceptron(self.network, self.loss_fn.activation)
        total = whole.epoch(rows, batch_size, optimizer, self.alpha)
        if total is None:
            total = 0.0
            for batch in rows.batches(batch_size):
                total = total + self._update(whole, optimizer, *batch)
        return float(to_host(total)) / rows.count

    def _update(
        self,
        whole: WholePerceptron,
        optimizer: Optimizer,
        x: Array,
        target: Array,
        weight: Array | None,
        mass: float,
    ) -> Array:
        """Update on one batch; return its loss, times its samples."""
        with as_one_call(x):
            optimizer.zero_grad()
            loss = whole.gradients(x, target, weight, mass)
            if loss is None:
                loss = self.loss_and_gradients(x, target, weight, mass)
            optimizer.param_groups[0]["weight_decay"] = self.alpha / mass
            loss = loss + self._penalty_and_step(optimizer, mass)
            return loss.astype(np.float64) * x.shape[0]

    def _penalty_and_step(self, optimizer: Optimizer, mass: float) -> Array:
        """Make the step and return the penalty that the weights had before it."""
        if isinstance(optimizer, EpsilonHatAdam) and self.alpha:
            optimizer.step()
            squares = optimizer.squares  # it has gone over all of them
        else:
            squares = self.squares()
            optimizer.step()
        return self.penalty(squares, mass)
