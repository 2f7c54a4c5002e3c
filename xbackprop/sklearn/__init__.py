"""scikit-learn's estimators, trained by our layers on any device (extra ``sklearn``)."""

try:
    import sklearn as _sklearn  # noqa: F401  # the extra; asked for here, where the message helps
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "xbackprop.sklearn needs scikit-learn; call pip install 'xbackprop[sklearn]'"
    ) from error

from xbackprop.sklearn.classifier import MLPClassifier
from xbackprop.sklearn.neural_classifier import NeuralClassifier
from xbackprop.sklearn.neural_regressor import NeuralRegressor
from xbackprop.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "NeuralClassifier", "NeuralRegressor"]
