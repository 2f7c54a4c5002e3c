"""What both perceptrons share: scikit-learn's parameters, and fit from validation to weights."""

from abc import ABC, abstractmethod
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device, resolve_device
from xbackprop.nn import Sequential
from xbackprop.nn.losses.canonical import activate_output
from xbackprop.sklearn.judge import begin_records
from xbackprop.sklearn.lbfgs import minimize
from xbackprop.sklearn.losses import CanonicalLoss
from xbackprop.sklearn.network import make_network, put_values, read_values
from xbackprop.sklearn.outputs import outputs_of
from xbackprop.sklearn.rows import TrainingRows, place_rows
from xbackprop.sklearn.steps import PenalizedNetwork
from xbackprop.sklearn.stochastic import StochasticFit

STOCHASTIC_SOLVERS = ("sgd", "adam")


class Perceptron(BaseEstimator, ABC):
    """Base of :class:`MLPClassifier` and :class:`MLPRegressor`; their parameters are its own.

    Between calls ``coefs_`` and ``intercepts_``, on the host, are the truth: every fit and every
    prediction starts from them. The solver's state stays where it was last.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "device": [str, Device, None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any,
        activation: str,
        solver: str,
        alpha: float,
        batch_size: Any,
        learning_rate: str,
        learning_rate_init: float,
        power_t: float,
        max_iter: int,
        loss: str,
        shuffle: bool,
        random_state: Any,
        tol: float,
        verbose: Any,
        warm_start: bool,
        momentum: float,
        nesterovs_momentum: bool,
        early_stopping: bool,
        validation_fraction: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        n_iter_no_change: float,
        max_fun: int,
        device: str | Device | None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.loss = loss
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the model to data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features)
            Inputs on the host.
        y : array_like, shape (samples,) or (samples, outputs)
            Class labels, or numbers.
        sample_weight : array_like, shape (samples,), optional
            Factors of the samples.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def _check_solver(self) -> bool:
        """Let only stochastic solvers have ``partial_fit``."""
        if self.solver not in STOCHASTIC_SOLVERS:
            raise AttributeError(
                "partial_fit is only available for stochastic"
                f" optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # --- what the two differ in -----------------------------------------------------------

    @abstractmethod
    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        """Return checked inputs and targets, as the loss takes them."""

    @abstractmethod
    def _output_activation(self) -> str:
        """Return the name of the output activation."""

    @abstractmethod
    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return what ``predict`` gives for activated outputs."""

    # --- fit ------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Self:
        hidden = _hidden_units(self.hidden_layer_sizes)
        is_first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y = self._validate_input(X, y, incremental, is_first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        if y.ndim == 1:
            y = y.reshape(-1, 1)
        self.n_outputs_ = y.shape[1]
        units = [X.shape[1], *hidden, self.n_outputs_]
        self._random_state = check_random_state(self.random_state)
        if is_first:
            self._initialize(units, X.dtype)
        else:
            self._check_units(units)
        device = resolve_device(self.device)
        with device.activate():
            if self.solver == "lbfgs":
                self._fit_lbfgs(X, y, sample_weight, units, device)
            else:
                if not hasattr(self, "loss_curve_"):  # L-BFGS has trained so far
                    begin_records(self)
                StochasticFit(self, units, device, incremental).run(X, y, sample_weight)
        if not all(np.isfinite(values).all() for values in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may"
                " contain large values and need to be preprocessed."
            )
        return self

    def _initialize(self, units: list[int], dtype: Any) -> None:
        """Draw the first weights in scikit-learn's order, and reset what is counted."""
        self.n_layers_ = len(units)
        self.out_activation_ = self._output_activation()
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation == "logistic" else 6.0
        for inputs, outputs in pairwise(units):
            bound = np.sqrt(factor / (inputs + outputs))
            draw = self._random_state.uniform
            self.coefs_.append(draw(-bound, bound, (inputs, outputs)).astype(dtype, copy=False))
            self.intercepts_.append(draw(-bound, bound, outputs).astype(dtype, copy=False))
        if self.solver in STOCHASTIC_SOLVERS:
            begin_records(self)
        else:
            self.n_iter_ = self.t_ = 0

    def _check_units(self, units: list[int]) -> None:
        """Refuse to go on with other layers; scikit-learn keeps the old ones without a word."""
        before = [self.coefs_[0].shape[0], *(values.shape[1] for values in self.coefs_)]
        if units != before:
            raise ValueError(
                f"{type(self).__name__} goes on with the layers it has, of {before} units from "
                f"features to outputs; hidden_layer_sizes and y ask for {units}. Call fit with "
                "warm_start=False."
            )

    def _fit_lbfgs(
        self, X: Any, y: Any, sample_weight: Any, units: list[int], device: Device
    ) -> None:
        network = self._make_network(units, np.float64, device)
        rows = TrainingRows(X, y, sample_weight, device, np.float64)
        self.n_iter_, self.loss_ = minimize(
            self._penalized(network), rows,
            tol=self.tol, max_iter=self.max_iter, max_fun=self.max_fun,
        )  # fmt: skip
        self.coefs_, self.intercepts_ = read_values(network)

    def _penalized(self, network: Sequential) -> PenalizedNetwork:
        return PenalizedNetwork(network, CanonicalLoss(self.out_activation_), float(self.alpha))

    def _make_network(self, units: list[int], dtype: Any, device: Device) -> Sequential:
        """Return the network of the weights as they are now, cast and moved."""
        network = make_network(units, self.activation, dtype)
        coefs = [values.astype(dtype, copy=False) for values in self.coefs_]
        put_values(network, coefs, self.intercepts_, device)
        return network

    # --- predictions ----------------------------------------------------------------------

    def _outputs(self, X: Any) -> np.ndarray:
        """Return activated outputs of inputs that are checked here."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        units = [self.coefs_[0].shape[0], *(values.shape[1] for values in self.coefs_)]
        device, dtype = resolve_device(self.device), self.coefs_[0].dtype
        network = self._make_network(units, dtype, device)
        rows = place_rows(X, device, dtype)
        return outputs_of(network, self._activate, rows, X.shape[0], device)

    def _activate(self, scores: Array) -> Array:
        """Return the outputs for what the last layer gives."""
        return activate_output(scores, self.out_activation_)

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples,) or (samples, outputs)
            Class labels, or numbers.
        """
        return self._decode(self._outputs(X))


def _hidden_units(sizes: Any) -> list[int]:
    hidden = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if np.any(np.array(hidden) <= 0):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
    return hidden
