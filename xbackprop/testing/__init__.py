"""For authors of layers: check the gradients, or the whole protocol."""

from xbackprop.testing.gradients import check_gradients
from xbackprop.testing.layer import check_layer
from xbackprop.testing.layer_checks import LAYER_CHECKS
from xbackprop.testing.network import LayerGradients, check_network
from xbackprop.testing.tolerances import TOLERANCES, Tolerances

__all__ = [
    "LAYER_CHECKS",
    "TOLERANCES",
    "LayerGradients",
    "Tolerances",
    "check_gradients",
    "check_layer",
    "check_network",
]
