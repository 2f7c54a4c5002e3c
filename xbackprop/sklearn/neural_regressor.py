"""A network whose outputs are numbers, as an estimator."""

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils.validation import validate_data

from xbackprop.backend.array_module import Array
from xbackprop.nn import Module, MSELoss
from xbackprop.sklearn.neural import NeuralEstimator
from xbackprop.sklearn.rows import check_numbers


class NeuralRegressor(RegressorMixin, NeuralEstimator):
    """A network whose outputs are numbers, as an estimator of scikit-learn.

    Parameters and attributes are those of :class:`NeuralClassifier`, without ``classes_``; the loss
    compares outputs ``(samples, outputs)`` with numbers of that shape, and None is MSELoss. Samples
    that are set aside are scored by R².
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Go on for one epoch over the given data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (samples, features, ...)
            Inputs on the host, cast to the network's dtype.
        y : array_like, shape (samples,) or (samples, outputs)
            Numbers.
        sample_weight : array_like, shape (samples,), optional
            Factors of the samples.

        Returns
        -------
        self
        """
        is_new = not hasattr(self, "module_")
        return self._fit(
            X, y, sample_weight, is_new=is_new, learns_outputs=is_new, incremental=True
        )

    def _activate(self, outputs: Array) -> Array:
        return outputs

    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        outputs = outputs.astype(self._target_dtype, copy=False)
        return outputs if self._target_shape else outputs.ravel()

    def _has_strata(self) -> bool:
        return False

    def _validate(self, X: Any, y: Any, reset: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(
            self, X, y, allow_nd=True, accept_sparse=["csr", "csc"], multi_output=True,
            y_numeric=True, dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        check_numbers(self, y)
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
