"""What NeuralClassifier and NeuralRegressor share: any Module as an estimator."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from xbackprop.backend.device import Device, resolve_device
from xbackprop.backend.transfer import to_host
from xbackprop.nn import Linear, Module, ReLU, Sequential
from xbackprop.ops.softmax import softmax
from xbackprop.optim import Adam
from xbackprop.sklearn.epochs import Epochs
from xbackprop.sklearn.rows import ResidentRows, place_rows
from xbackprop.training import Trainer

_PREDICTED_AT_ONCE = 1024  # rows


def hidden_layer_network(features: int, outputs: int, rng: np.random.Generator) -> Sequential:
    """Return the network that is taken where none is given: 100 hidden units with ReLU."""
    return Sequential(Linear(features, 100), ReLU(), Linear(100, outputs), rng=rng)


class NeuralEstimator(BaseEstimator, ABC):
    """Base of :class:`NeuralClassifier` and :class:`NeuralRegressor`; it has their parameters."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "module": [Module, callable, None],
        "loss": [Module, None],
        "optimizer": [callable, None],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "warm_start": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "device": [str, Device, None],
    }

    def __init__(
        self,
        module: Module | Callable[..., Module] | None = None,
        *,
        loss: Module | None = None,
        optimizer: Callable[..., Any] | None = None,
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        batch_size: Any = "auto",
        shuffle: bool = True,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: Any = False,
        warm_start: bool = False,
        device: str | Device | None = None,
    ) -> None:
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.device = device

    @abstractmethod
    def _targets(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        """Return the targets as the loss takes them."""

    @abstractmethod
    def _default_loss(self) -> Module:
        """Return the loss that is taken where none is given."""

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any) -> Self:
        """Train the network anew.

        Parameters
        ----------
        X : array_like, shape (samples, features, ...)
            Inputs on the host, cast to the network's dtype.
        y : array_like, shape (samples,) or (samples, outputs)
            Class labels, or numbers.

        Returns
        -------
        self
        """
        is_new = not (self.warm_start and hasattr(self, "module_"))
        return self._fit(X, y, is_new=is_new, learns_outputs=is_new, epochs=self.max_iter)

    def _fit(self, X: Any, y: Any, *, is_new: bool, learns_outputs: bool, epochs: int) -> Self:
        X, y = self._validate(X, y, is_new)
        random = check_random_state(self.random_state)
        device = resolve_device(self.device)
        outputs = self._count_outputs(y, learns_outputs)
        network = self._make_module(X.shape[1], outputs, random) if is_new else self.module_
        dtype = network.dtype or np.dtype(np.float32)
        network.to(device)
        if is_new:
            make = Adam if self.optimizer is None else self.optimizer
            self._optimizer = make(network.parameters(), lr=float(self.learning_rate_init))
            self.loss_curve_: list[float] = []
        with device.activate():
            batches = Epochs(
                place_rows(X, device, dtype),
                ResidentRows(self._targets(y, dtype), device),
                X.shape[0],
                min(200, X.shape[0]) if self.batch_size == "auto" else int(self.batch_size),
                random if self.shuffle else None,
                device,
            )
            self._train(network, batches, epochs)
        self._optimizer.zero_grad()
        self.module_: Module = network.eval()
        return self

    @abstractmethod
    def _validate(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return checked inputs and targets; ``reset`` lets them set the number of features."""

    @abstractmethod
    def _count_outputs(self, y: np.ndarray, learns: bool) -> int:
        """Return how many outputs the targets need; learn what they are like, or compare."""

    def _make_module(self, features: int, outputs: int, random: Any) -> Module:
        if isinstance(self.module, Module):
            return copy.deepcopy(self.module).train()
        make = hidden_layer_network if self.module is None else self.module
        rng = np.random.default_rng(random.randint(np.iinfo(np.int32).max))
        network: Module = make(features, outputs, rng)
        return network.train()

    def _train(self, network: Module, batches: Epochs, epochs: int) -> None:
        loss = self._default_loss() if self.loss is None else copy.deepcopy(self.loss)
        trainer = Trainer(network, loss, self._optimizer)
        before = len(self.loss_curve_)
        best, worse = np.inf, 0

        def judge(row: Any) -> None:
            nonlocal best, worse
            self.loss_curve_.append(row.train_loss)
            if self.verbose:
                print(f"Iteration {len(self.loss_curve_)}, loss = {row.train_loss:.8f}")
            worse = worse + 1 if row.train_loss > best - self.tol else 0
            best = min(best, row.train_loss)
            if worse > self.n_iter_no_change:
                trainer.request_stop()

        trainer.fit(batches, epochs=epochs, on_epoch=judge)
        self.n_iter_ = len(self.loss_curve_) - before
        self.loss_ = self.loss_curve_[-1]

    def _outputs(self, X: Any, *, probabilities: bool) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, reset=False)
        device = resolve_device(self.device)
        network = self.module_.to(device)
        rows = place_rows(X, device, network.dtype or np.dtype(np.float32))
        parts = []
        with device.activate():
            for x in rows.batches(list(gen_batches(X.shape[0], _PREDICTED_AT_ONCE)), None, None):
                output = network(x)
                parts.append(to_host(softmax(output, 1) if probabilities else output))
        return np.concatenate(parts)
