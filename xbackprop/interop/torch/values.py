"""What a converted module takes over beside its options: values, ties, modes."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
from xbackprop.interop.torch.tensors import array_of
from xbackprop.module import Module, Parameter, UninitializedParameter
from xbackprop.module.state import walk


def check_dtypes(module: Any) -> None:
    """Refuse floats that no layer of ours computes in, before anything is built."""
    for path, tensor in module.state_dict(keep_vars=True).items():
        name = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
        if "float" in name and name not in ("float32", "float64"):
            raise TypeError(
                f"from_torch: {path} is {name}; layers compute in float32 or float64. "
                "Call module.float() first."
            )


def carry_values(module: Any, built: Module, device: str | Device | None) -> None:
    """Copy the parameters and buffers of a PyTorch module, each in its dtype; tie what is tied."""
    tensors = module.state_dict(keep_vars=True)
    _refuse_shared_memory(tensors)
    left = dict(tensors)
    parameters: dict[int, Any] = {}
    for path, part in walk(built):
        start = f"{path}." if path else ""
        for name, parameter in list(part.own_parameters()):
            tensor = _take(left, start + name, parameter)
            if id(tensor) not in parameters:
                _fill(parameter, start + name, tensor, device)
                parameters[id(tensor)] = parameter
            elif parameters[id(tensor)] is not parameter:
                setattr(part, name, parameters[id(tensor)])
        for name, buffer in list(part.own_buffers(persistent=True)):
            tensor = _take(left, start + name, buffer)
            part.register_buffer(name, _copy(start + name, tensor, device))
    if left:
        raise NotImplementedError(f"from_torch: ours have no values called {', '.join(left)}")


def carry_modes(module: Any, built: Module) -> None:
    """Put every part into the mode of its counterpart, or else of what holds it."""
    parts = dict(module.named_modules(remove_duplicate=False))
    for path, part in walk(built):
        if path in parts:
            part.train(parts[path].training)


def _take(left: dict[str, Any], key: str, ours: Any) -> Any:
    if key not in left:
        raise NotImplementedError(f"from_torch: PyTorch's module has no values called {key}")
    tensor = left.pop(key)
    if not _is_lazy(tensor) and tuple(tensor.shape) != ours.shape:
        raise NotImplementedError(
            f"from_torch: {key} has shape {tuple(tensor.shape)}; ours has {ours.shape}"
        )
    return tensor


def _fill(
    parameter: Parameter | UninitializedParameter,
    key: str,
    tensor: Any,
    device: str | Device | None,
) -> None:
    parameter.requires_grad = tensor.requires_grad
    if not _is_lazy(tensor):
        parameter.data = _copy(key, tensor, device)


def _copy(key: str, tensor: Any, device: str | Device | None) -> Array:
    return to_device(np.array(array_of(key, tensor), order="C", copy=True), device)


def _is_lazy(tensor: Any) -> bool:
    return hasattr(tensor, "materialize")


def _refuse_shared_memory(tensors: dict[str, Any]) -> None:
    """Refuse two tensors in one place: a step would change both, and ours would part."""
    first: dict[int, tuple[str, Any]] = {}
    for key, tensor in tensors.items():
        if _is_lazy(tensor) or tensor.numel() == 0:
            continue
        other, known = first.setdefault(tensor.data_ptr(), (key, tensor))
        if known is not tensor:
            raise NotImplementedError(
                f"from_torch: {other} and {key} share memory without being one tensor. Assign the "
                "one to the other, or clone one."
            )
