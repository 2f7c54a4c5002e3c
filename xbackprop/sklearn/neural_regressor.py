"""A network whose outputs are numbers, as an estimator."""

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils.validation import validate_data

from xbackprop.nn import Module, MSELoss
from xbackprop.sklearn.neural import NeuralEstimator


class NeuralRegressor(RegressorMixin, NeuralEstimator):
    """A network whose outputs are numbers, as an estimator of scikit-learn.

    Parameters and attributes are those of :class:`NeuralClassifier`, without ``classes_``; the loss
    compares outputs ``(samples, outputs)`` with numbers of that shape, and None is MSELoss.
    """

    def predict(self, X: Any) -> np.ndarray:
        """Return the network's outputs.

        Parameters
        ----------
        X : array_like, shape (samples, features, ...)
            Inputs on the host.

        Returns
        -------
        numpy.ndarray, shape (samples,) or (samples, outputs)
            As the targets were, in their float dtype.
        """
        outputs = self._outputs(X, probabilities=False)
        outputs = outputs.astype(self._target_dtype, copy=False)
        return outputs if self._target_shape else outputs.ravel()

    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X: Any, y: Any) -> Self:
        """Go on for one epoch over the given data.

        Parameters
        ----------
        X : array_like, shape (samples, features, ...)
            Inputs on the host, cast to the network's dtype.
        y : array_like, shape (samples,) or (samples, outputs)
            Numbers.

        Returns
        -------
        self
        """
        is_new = not hasattr(self, "module_")
        return self._fit(X, y, is_new=is_new, learns_outputs=is_new, epochs=1)

    def _validate(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(
            self, X, y, allow_nd=True, multi_output=True, y_numeric=True,
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        return X, y

    def _count_outputs(self, y: np.ndarray, learns: bool) -> int:
        if learns:
            self._target_shape = y.shape[1:]
            self._target_dtype = y.dtype if y.dtype.kind == "f" else np.dtype(np.float64)
        elif y.shape[1:] != self._target_shape:
            expected = ("samples", *self._target_shape)
            raise ValueError(
                f"NeuralRegressor expects y of shape {expected}, as before; got {y.shape}"
            )
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _targets(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        return y.reshape(len(y), -1).astype(dtype)

    def _default_loss(self) -> Module:
        return MSELoss()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
