"""The perceptron that tells classes apart: scikit-learn's MLPClassifier on any device."""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from xbackprop.backend.device import Device
from xbackprop.sklearn.perceptron import Perceptron


class MLPClassifier(ClassifierMixin, Perceptron):
    """Multi-layer perceptron for classes, with the parameters and numbers of scikit-learn's.

    Parameters
    ----------
    hidden_layer_sizes : array_like of int, default (100,)
        Units of each hidden layer.
    activation : {"identity", "logistic", "tanh", "relu"}, default "relu"
        Of the hidden layers.
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
        L-BFGS computes in float64 and its steps wait for the device.
    alpha : float, default 0.0001
        Factor of the L2 penalty, which is divided by the number of samples.
    batch_size : int or "auto", default "auto"
        Samples per update; ``min(200, samples)``. L-BFGS takes all.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        Of SGD: constant, ``learning_rate_init / (t + 1)^power_t``, or a fifth where
        training would stop.
    learning_rate_init : float, default 0.001
        The first learning rate, of SGD and Adam.
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Largest number of epochs, or of L-BFGS' iterations.
    shuffle : bool, default True
        Draw the order of the samples anew in each epoch.
    random_state : int, RandomState or None
        Draws weights, orders and the validation set, as scikit-learn does.
    tol : float, default 1e-4
        Smallest improvement that counts.
    verbose : bool, default False
        Print the loss of each epoch.
    warm_start : bool, default False
        Let ``fit`` go on from the last weights.
    momentum : float, default 0.9
        Of SGD, 0 to 1.
    nesterovs_momentum : bool, default True
        Let SGD look ahead.
    early_stopping : bool, default False
        Set samples aside, stop when their score does not improve, and keep the best
        weights.
    validation_fraction : float, default 0.1
        Share of the samples set aside.
    beta_1 : float, default 0.9
        Adam's decay of the mean of gradients.
    beta_2 : float, default 0.999
        Adam's decay of the mean of their squares.
    epsilon : float, default 1e-8
        Added to Adam's denominator.
    n_iter_no_change : int or inf, default 10
        Epochs without improvement after which training stops.
    max_fun : int, default 15000
        Largest number of L-BFGS' evaluations.
    device : str, Device or None
        Where to compute; None is the default device. scikit-learn has no such
        parameter.

    Attributes
    ----------
    coefs_, intercepts_ : list of numpy.ndarray
        Weights ``(inputs, outputs)`` and biases of each layer, on the host.
    loss_, best_loss_ : float
        The last loss, and the smallest; None with early stopping.
    loss_curve_ : list of float
        The mean loss of each epoch.
    validation_scores_, best_validation_score_ : list of float, float
        With early stopping; else None.
    n_iter_, t_, n_layers_, n_outputs_, n_features_in_ : int
        Epochs, samples seen, layers with the inputs, outputs, features.
    out_activation_ : str
        Name of the output activation.
    classes_ : numpy.ndarray, shape (classes,)
        The labels, sorted.

    Notes
    -----
    With equal ``random_state`` the initial weights, the order of the samples and, in float64, the
    loss curve are scikit-learn's to rounding. Targets and weights are cast to the dtype of ``X``,
    and ``X`` of a prediction to that of ``coefs_``; scikit-learn mixes the two. A sparse ``X`` is
    made dense batch by batch. Where a warm start with early stopping finds no better score, the
    best weights are kept; scikit-learn keeps the last, which are trained in the best ones' place.
    Going on with other ``hidden_layer_sizes`` is refused; scikit-learn trains the old layers.

    References
    ----------
    scikit-learn 1.9, ``sklearn.neural_network.MLPClassifier``.

    Examples
    --------
    >>> from xbackprop.sklearn import MLPClassifier
    >>> X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]
    >>> model = MLPClassifier((8,), solver="lbfgs", random_state=1, device="cpu").fit(X, y)
    >>> model.predict(X)
    array([0, 1, 1, 0])
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            loss="log_loss",
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            device=device,
        )

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Go on for one epoch over the given data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features)
            Inputs on the host.
        y : array_like, shape (samples,) or (samples, classes)
            Class labels.
        sample_weight : array_like, shape (samples,), optional
            Factors of the samples.
        classes : array_like, shape (classes,), optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        self
        """
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities of the classes.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples, classes)
            In the order of ``classes_``.
        """
        outputs = self._outputs(X)
        if self.n_outputs_ == 1:
            outputs = outputs.ravel()
            return np.vstack([1 - outputs, outputs]).T
        return outputs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of :meth:`predict_proba`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples, classes)
            In the order of ``classes_``.
        """
        return np.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True,
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(unique_labels(y))
        return X, self._label_binarizer.transform(y).astype(bool)

    def _check_classes(self, classes: np.ndarray) -> None:
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same "
                    "classes as in the previous call to fit. Previously "
                    f"got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _output_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        if self.n_outputs_ == 1:
            outputs = outputs.ravel()
        labels: np.ndarray = self._label_binarizer.inverse_transform(outputs)
        return labels
