"""PyTorch beside us: its weights, its modules, and our layers as functions of its tensors."""

from xbackprop.interop.torch.function import TorchFunction, as_torch_function
from xbackprop.interop.torch.modules import from_torch
from xbackprop.interop.torch.state import (
    IncompatibleKeys,
    from_torch_state_dict,
    to_torch_state_dict,
)

__all__ = [
    "IncompatibleKeys",
    "TorchFunction",
    "as_torch_function",
    "from_torch",
    "from_torch_state_dict",
    "to_torch_state_dict",
]
