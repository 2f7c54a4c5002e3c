"""What happens between epochs: learning rates, and when to stop."""

from dataclasses import dataclass
from typing import Any

from xbackprop.optim import Optimizer
from xbackprop.sklearn.network import weights_and_biases
from xbackprop.sklearn.optimizers import EpsilonHatAdam, VelocitySGD

_SMALLEST_RATE = 1e-6


def make_optimizer(estimator: Any, network: Any) -> Optimizer:
    """Return the solver of an estimator; its first group holds the weights, which are penalized."""
    groups: list[dict[str, Any]] = [{"params": group} for group in weights_and_biases(network)]
    if estimator.solver == "sgd":
        return VelocitySGD(
            groups,
            float(estimator.learning_rate_init),
            float(estimator.momentum),
            bool(estimator.nesterovs_momentum),
        )
    return EpsilonHatAdam(
        groups,
        float(estimator.learning_rate_init),
        (float(estimator.beta_1), float(estimator.beta_2)),
        float(estimator.epsilon),
    )


@dataclass
class RateSchedule:
    """The learning rate of a solver, which for SGD may fall.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rate it is.
    kind : {"constant", "invscaling", "adaptive"}
        Constant; ``first / (t + 1)^power``; or a fifth each time training would stop.
    first : float
        Where it starts.
    power : float
        Of "invscaling".
    """

    optimizer: Optimizer
    kind: str
    first: float
    power: float

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def finish_epoch(self, samples: int) -> None:
        """Lower the rate after an epoch; ``samples`` is how many were seen so far."""
        if self.kind == "invscaling":
            self.rate = self.first / (samples + 1) ** self.power

    def ends_training(self, message: str, verbose: Any) -> bool:
        """Tell whether training stops where it does not improve; else the rate was lowered."""
        ends = self.kind != "adaptive" or self.rate <= _SMALLEST_RATE
        if self.kind != "adaptive":
            what = "Stopping."
        elif ends:
            what = "Learning rate too small. Stopping."
        else:
            self.rate /= 5.0
            what = f"Setting learning rate to {self.rate:f}"
        if verbose:
            print(message, what)
        return ends
