"""What NeuralClassifier and NeuralRegressor share: any Module as an estimator."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device, resolve_device
from xbackprop.nn import Linear, Module, ReLU, Sequential
from xbackprop.optim import Adam
from xbackprop.sklearn.epochs import Epochs, choose_batch_size
from xbackprop.sklearn.held_out import HeldOut, set_aside
from xbackprop.sklearn.judge import Judge, begin_records, interruptible
from xbackprop.sklearn.outputs import outputs_of
from xbackprop.sklearn.rows import ResidentRows, place_rows
from xbackprop.sklearn.weighted import WeightedLoss
from xbackprop.training import EpochMetrics, Trainer


def hidden_layer_network(
    features: int, outputs: int, rng: np.random.Generator, dtype: Any
) -> Sequential:
    """Return the network that is taken where none is given: 100 hidden units with ReLU."""
    layers = Linear(features, 100, dtype=dtype), ReLU(), Linear(100, outputs, dtype=dtype)
    return Sequential(*layers, rng=rng)


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
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
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
        n_iter_no_change: float = 10,
        random_state: Any = None,
        verbose: Any = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
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
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network anew.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features, ...)
            Inputs on the host, cast to the network's dtype.
        y : array_like, shape (samples,) or (samples, outputs)
            Class labels, or numbers.
        sample_weight : array_like, shape (samples,), optional
            Factors of the samples: the loss of a batch is ``sum(w l) / sum(w)``.

        Returns
        -------
        self

        Raises
        ------
        ZeroDivisionError
            When the weights of a batch sum up to 0.
        NotImplementedError
            For weights with a loss that cannot give one number per sample.
        """
        is_new = not (self.warm_start and hasattr(self, "module_"))
        return self._fit(X, y, sample_weight, is_new=is_new, learns_outputs=is_new)

    # --- what the two differ in -----------------------------------------------------------

    @abstractmethod
    def _validate(self, X: Any, y: Any, reset: bool) -> tuple[Any, np.ndarray]:
        """Return checked inputs and targets; ``reset`` lets them set the number of features."""

    @abstractmethod
    def _count_outputs(self, y: np.ndarray, learns: bool) -> int:
        """Return how many outputs the targets need; learn what they are like, or compare."""

    @abstractmethod
    def _targets(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        """Return the targets as the loss takes them."""

    @abstractmethod
    def _default_loss(self) -> Module:
        """Return the loss that is taken where none is given."""

    @abstractmethod
    def _has_strata(self) -> bool:
        """Tell whether samples are set aside class by class."""

    @abstractmethod
    def _activate(self, outputs: Array) -> Array:
        """Return what is read back of the network's outputs."""

    @abstractmethod
    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return what ``predict`` gives for activated outputs."""

    # --- fit ------------------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        is_new: bool,
        learns_outputs: bool,
        incremental: bool = False,
    ) -> Self:
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        X, y = self._validate(X, y, is_new)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        random = check_random_state(self.random_state)
        device = resolve_device(self.device)
        outputs = self._count_outputs(y, learns_outputs)
        network = self._make_module(X, outputs, random) if is_new else self.module_
        network.to(device)
        if is_new:
            make = Adam if self.optimizer is None else self.optimizer
            self._optimizer = make(network.parameters(), lr=float(self.learning_rate_init))
            self.module_: Module = network
            begin_records(self)
        try:
            with device.activate():
                self._train(network, X, y, sample_weight, random, device, incremental)
        finally:
            self._optimizer.zero_grad()
            network.eval()
        return self

    def _make_module(self, X: Any, outputs: int, random: Any) -> Module:
        if isinstance(self.module, Module):
            return copy.deepcopy(self.module).train()
        rng = np.random.default_rng(random.randint(np.iinfo(np.int32).max))
        if self.module is None:
            return hidden_layer_network(X.shape[1], outputs, rng, X.dtype)
        network = self.module(X.shape[1], outputs, rng)
        if not isinstance(network, Module):
            raise TypeError(
                f"{type(self).__name__} expects module(features, outputs, rng) to return a Module; "
                f"got {type(network).__name__}."
            )
        return network.train()

    def _train(
        self,
        network: Module,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        random: Any,
        device: Device,
        incremental: bool,
    ) -> None:
        dtype = network.dtype or np.dtype(np.float32)
        held = None
        if self.early_stopping:
            (X, y, sample_weight), aside = set_aside(
                X, y, sample_weight, fraction=self.validation_fraction, random=random,
                is_stratified=self._has_strata(),
            )  # fmt: skip
            held = HeldOut(self, *aside, device, dtype)
        loss, batches = self._place(X, y, sample_weight, random, device, dtype)
        trainer = Trainer(network, loss, self._optimizer)
        judge = Judge(self, network, held)

        def finish(row: EpochMetrics) -> None:
            judge.finish_epoch(row.train_loss, batches.count)
            if judge.ends_training:
                if self.verbose:
                    print(judge.reason, "Stopping.")
                trainer.request_stop()

        with interruptible():
            trainer.fit(batches, epochs=1 if incremental else self.max_iter, on_epoch=finish)
        if self.best_validation_score_ != -np.inf:  # else what was learned is not given up
            judge.restore_best()
        if not incremental:
            judge.warn_unless_converged()

    def _place(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        random: Any,
        device: Device,
        dtype: Any,
    ) -> tuple[Module, Epochs]:
        """Return the loss, and the batches it is for; what fits is moved to the device here."""
        loss = self._default_loss() if self.loss is None else copy.deepcopy(self.loss)
        loss.to(device, dtype)
        count = X.shape[0]
        targets = ResidentRows(self._targets(y, dtype), device)
        if sample_weight is not None:
            loss = WeightedLoss(loss, targets.array, sample_weight, dtype)
            targets = ResidentRows(device.xp.arange(count), device)
            if loss.reduction == "sum":  # there is no mean that could be none
                sample_weight = None
        batches = Epochs(
            place_rows(X, device, dtype),
            targets,
            count,
            choose_batch_size(self.batch_size, count),
            random if self.shuffle else None,
            device,
            sample_weight,
        )
        return loss, batches

    # --- predictions ----------------------------------------------------------------------

    def _outputs(self, X: Any, activate: Callable[[Array], Array]) -> np.ndarray:
        """Return activated outputs of inputs that are checked here."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, accept_sparse=["csr", "csc"], reset=False)
        device = resolve_device(self.device)
        network = self.module_.to(device)
        rows = place_rows(X, device, network.dtype or np.dtype(np.float32))
        return outputs_of(network, activate, rows, X.shape[0], device)

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features, ...)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples,) or (samples, outputs)
            The most probable classes; or the network's outputs, of the shape and float dtype that
            the targets had.
        """
        return self._decode(self._outputs(X, self._activate))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
