"""A network that tells classes apart, as an estimator."""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import validate_data

from xbackprop.backend.array_module import Array
from xbackprop.nn import CrossEntropyLoss, Module
from xbackprop.ops.softmax import log_softmax, softmax
from xbackprop.sklearn.neural import NeuralEstimator


class NeuralClassifier(ClassifierMixin, NeuralEstimator):
    """A network whose outputs are logits of classes, as an estimator of scikit-learn.

    Parameters
    ----------
    module : Module, callable or None
        A network, copied for each fit; or ``module(features, outputs, rng)``, which makes one; None
        is one hidden layer of 100 units with ReLU, in float64 where X is, as in scikit-learn.
    loss : Module, optional
        Compares logits with class indices; None is CrossEntropyLoss.
    optimizer : callable, optional
        ``optimizer(parameters, lr=...)`` makes one; None is Adam.
    learning_rate_init : float, default 0.001
        What the optimizer is given as ``lr``.
    max_iter : int, default 200
        Largest number of epochs.
    batch_size : int or "auto", default "auto"
        Samples per update; ``min(200, samples)``.
    shuffle : bool, default True
        Draw the order of the samples anew in each epoch.
    tol : float, default 1e-4
        Smallest improvement of the loss that counts.
    n_iter_no_change : int or inf, default 10
        Epochs without improvement after which training stops.
    random_state : int, RandomState or None
        Draws weights, orders and the validation set; not the weights of a given Module, nor its
        dropout.
    verbose : bool, default False
        Print the loss of each epoch.
    warm_start : bool, default False
        Let ``fit`` go on with the last network and optimizer.
    early_stopping : bool, default False
        Set samples aside, stop when their score does not improve, and keep the best weights and
        running statistics. ``partial_fit`` refuses it.
    validation_fraction : float, default 0.1
        Share of the samples set aside; of two classes that share of each. With more of them
        nothing keeps a class from being set aside as a whole, as in scikit-learn's MLPClassifier.
    device : str, Device or None
        Where to compute; None is the default device.

    Attributes
    ----------
    module_ : Module
        The trained network, on the device.
    classes_ : numpy.ndarray, shape (classes,)
        The labels, sorted.
    loss_curve_ : list of float
        The mean loss of each epoch, of all calls that went on from each other.
    loss_, best_loss_ : float
        The last loss, and the smallest; None with early stopping.
    validation_scores_, best_validation_score_ : list of float, float
        With early stopping; else None.
    n_iter_, t_, n_features_in_ : int
        Epochs of the last call, samples seen, and the length of the inputs' second axis.

    Notes
    -----
    With ``sample_weight`` the loss of a batch is ``sum(w l) / sum(w)``, ``l`` being the loss of a
    sample: the loss is asked for those by ``reduction="none"``, and one that cannot give them is
    refused by NotImplementedError. The loss of an epoch counts each batch by its samples, as
    scikit-learn does. A sparse ``X`` is made dense batch by batch.

    Examples
    --------
    >>> from xbackprop.sklearn import NeuralClassifier
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["low", "low", "high", "high"]
    >>> model = NeuralClassifier(learning_rate_init=0.05, random_state=0, device="cpu").fit(X, y)
    >>> print(*model.predict([[-1.0], [4.0]]))
    low high
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Go on for one epoch over the given data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features, ...)
            Inputs on the host, cast to the network's dtype.
        y : array_like, shape (samples,)
            Class labels.
        sample_weight : array_like, shape (samples,), optional
            Factors of the samples.
        classes : array_like, shape (classes,), optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        self
        """
        is_new = not hasattr(self, "module_")
        _check_partial_fit_first_call(self, classes)
        return self._fit(X, y, sample_weight, is_new=is_new, learns_outputs=False, incremental=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the softmax of the network's outputs.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features, ...)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples, classes)
            In the order of ``classes_``.
        """
        return self._one_for_each_class(self._outputs(X, self._activate))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of :meth:`predict_proba`, finite where those round to 0.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features, ...)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples, classes)
            In the order of ``classes_``.
        """
        return self._one_for_each_class(self._outputs(X, lambda output: log_softmax(output, 1)))

    def _one_for_each_class(self, outputs: np.ndarray) -> np.ndarray:
        expected = (len(outputs), len(self.classes_))
        if outputs.shape != expected:
            raise ValueError(
                f"NeuralClassifier expects outputs of shape {expected}, one for each class; the "
                f"module gives {outputs.shape}"
            )
        return outputs

    def _activate(self, outputs: Array) -> Array:
        return softmax(outputs, 1)

    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.classes_[self._one_for_each_class(outputs).argmax(axis=1)]
        return labels

    def _validate(self, X: Any, y: Any, reset: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(
            self, X, y, allow_nd=True, accept_sparse=["csr", "csc"],
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        check_classification_targets(y)
        return X, y

    def _has_strata(self) -> bool:
        return len(self.classes_) == 2

    def _count_outputs(self, y: np.ndarray, learns: bool) -> int:
        if learns:
            self.classes_ = np.unique(y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. `y` has {unknown} as well."
            )
        return len(self.classes_)

    def _targets(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _default_loss(self) -> Module:
        return CrossEntropyLoss()
