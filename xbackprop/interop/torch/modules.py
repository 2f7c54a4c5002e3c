"""Our module in the place of PyTorch's: the same options, weights, ties and modes."""

import inspect
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.interop.torch.options import describe, join, read_options
from xbackprop.interop.torch.values import carry_modes, carry_values, check_dtypes
from xbackprop.module import Module

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def from_torch(
    module: Any, *, device: str | Device | None = None, rng: RandomSource = None
) -> Module:
    """Build our module with the options, the weights and the mode of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.Module
        A layer or loss of ``torch.nn`` that the catalogue has under the same name, or a Sequential,
        ModuleList or ModuleDict of them, nested as you like.
    device : str or Device, optional
        Where the result lives; None is the default device.
    rng : Generator, int or None
        Draws the keys of random layers.

    Returns
    -------
    Module
        With copies of the weights in their dtypes, the same ``training`` and ``requires_grad``, and
        the same layers and weights shared.

    Raises
    ------
    NotImplementedError
        Names the class and path of a module that is not in the catalogue, an option that it does
        not have or that cannot be read, hooks, and weights that share memory without being one.
    TypeError
        For what is no PyTorch module, and for float16 and bfloat16 (call ``module.float()``).

    Notes
    -----
    A class of your own is not converted, nor is one that inherits from a layer: its ``forward`` is
    known to PyTorch only. Write it as a :class:`Module` and load its weights with
    :func:`from_torch_state_dict`.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> from_torch(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))  # doctest: +SKIP
    Sequential(
      (0): Linear(2, 3, bias=True)
      (1): ReLU()
    )
    """
    torch = sys.modules.get("torch")  # who has a module of PyTorch has imported it
    if torch is None or not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_torch expects a torch.nn.Module; got {type(module).__name__}")
    check_dtypes(module)
    built = _Conversion(torch, device, as_generator(rng)).convert(module, "")
    carry_values(module, built, device)
    carry_modes(module, built)
    return built


@dataclass
class _Conversion:
    torch: Any
    device: str | Device | None
    rng: np.random.Generator
    known: dict[int, Module] = field(default_factory=dict)  # a shared module stays one

    def convert(self, module: Any, path: str) -> Module:
        if id(module) not in self.known:
            self.known[id(module)] = self._build(module, path)
        return self.known[id(module)]

    def _build(self, module: Any, path: str) -> Module:
        cls = self._class_of(module, path)
        _refuse_changed(module, path)
        if issubclass(cls, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return self._build_container(module, cls, path)
        options = read_options(module, cls, path, self.convert)
        taken = inspect.signature(cls).parameters
        place = {"device": self.device, "dtype": _dtype_of(module), "rng": self.rng}
        try:
            return cls(**options, **{name: place[name] for name in place if name in taken})
        except (NotImplementedError, TypeError, ValueError) as error:
            raise type(error)(f"{describe(module, path)}: {error}") from error

    def _build_container(self, module: Any, cls: type[Module], path: str) -> Module:
        parts = {
            name: self.convert(child, join(path, name)) for name, child in module._modules.items()
        }
        if cls is nn.ModuleList:
            return cls(list(parts.values()))
        is_numbered = list(parts) == [str(position) for position in range(len(parts))]
        return cls(*parts.values()) if cls is nn.Sequential and is_numbered else cls(parts)

    def _class_of(self, module: Any, path: str) -> type[Module]:
        cls = type(module)
        found = nn.catalogue().get(cls.__name__)
        if found is None or getattr(self.torch.nn, cls.__name__, None) is not cls:
            raise NotImplementedError(
                f"from_torch: {path or 'the module'} is a {cls.__module__}.{cls.__qualname__}, "
                "which is not in xbackprop.nn.catalogue(). Write it as an xbackprop.Module and "
                "load its weights with from_torch_state_dict."
            )
        return found


def _refuse_changed(module: Any, path: str) -> None:
    """Refuse a module that computes something else than its class says."""
    hooks = [
        name
        for name in _HOOKS
        # A lazy layer has one of its own.
        if any(
            getattr(hook, "__self__", None) is not module for hook in getattr(module, name).values()
        )
    ]
    if hooks:
        raise NotImplementedError(
            f"{describe(module, path)} has hooks ({', '.join(hooks)}). Remove them first."
        )
    if "forward" in vars(module):
        raise NotImplementedError(f"{describe(module, path)} has a forward of its own")


def _dtype_of(module: Any) -> str | None:
    """Return the dtype of the first parameter, by its name in NumPy."""
    parameter = next(module.parameters(), None)
    return None if parameter is None else str(parameter.dtype).removeprefix("torch.")
