"""Parameters whose shape only the first forward tells."""

from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.transfer import to_device
from xbackprop.module.frame import current_frame
from xbackprop.module.parameter import Parameter

if TYPE_CHECKING:
    from xbackprop.module.base import Module


class UninitializedParameter:
    """Stands where a :class:`Parameter` will be once its shape is known.

    Not a Parameter: an optimizer that was given it would train what nobody uses, and refuses it.

    Parameters
    ----------
    expected : tuple of int and None
        The shape, with None where it is not known.
    device : str or Device, optional
        Where the parameter will live; None is the default device.
    dtype : dtype
        Its dtype.
    requires_grad : bool, default True
        False freezes what it becomes.

    Attributes
    ----------
    data : array
        No elements; ``state_dict`` holds it as a sign that there are no values yet.
    becomes : Parameter or None
        What took its place; for a second module that holds it as well.
    """

    __slots__ = ("becomes", "data", "expected", "requires_grad")

    grad = None
    has_grad = False
    contributions = 0
    version = 0

    def __init__(
        self,
        expected: tuple[int | None, ...],
        device: str | Device | None,
        dtype: Any,
        requires_grad: bool = True,
    ) -> None:
        self.expected = expected
        self.requires_grad = requires_grad
        self.becomes: Parameter | None = None
        shape = [length or 0 for length in expected]
        if None not in expected:
            shape[0] = 0
        self.data: Array = to_device(np.zeros(shape, dtype), device)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of :attr:`data`."""
        shape: tuple[int, ...] = self.data.shape
        return shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values to come."""
        dtype: np.dtype = self.data.dtype
        return dtype

    @property
    def size(self) -> int:
        """Number of elements: none."""
        return 0

    @property
    def device(self) -> Device:
        """The device it lives on."""
        return device_of(self.data)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether values of a shape may take its place."""
        return len(shape) == len(self.expected) and all(
            known in (None, length) for known, length in zip(self.expected, shape, strict=True)
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: there is no gradient."""

    def mark_changed(self) -> None:
        """Do nothing: there are no values."""

    def to(self, device: str | Device | None = None, dtype: Any = None) -> None:
        """Move to a device, set the dtype, or both; None keeps it."""
        place = self.device if device is None else device
        self.data = to_device(np.zeros(self.shape, dtype or self.dtype), place)

    def __deepcopy__(self, memo: dict[int, Any]) -> "UninitializedParameter":
        copied = UninitializedParameter(self.expected, self.device, self.dtype, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return UninitializedParameter, (self.expected, "cpu", self.dtype, self.requires_grad)

    def __repr__(self) -> str:
        return f"UninitializedParameter(dtype={self.dtype}, device={self.device})"


def create_parameter(module: "Module", name: str, data: Array) -> Parameter:
    """Put a Parameter in the place of an uninitialized one when the outermost call succeeds.

    Parameters
    ----------
    module : Module
        Holds the uninitialized parameter.
    name : str
        Its attribute.
    data : array
        The values.

    Returns
    -------
    Parameter
        To be used by the running call, through :func:`read_parameter`.
    """
    uninitialized = vars(module)[name]
    parameter = Parameter(data, uninitialized.requires_grad)
    current_frame().updates[id(uninitialized), "becomes"] = (module, name, parameter)
    return parameter


def read_parameter(module: "Module", name: str) -> Any:
    """Return a parameter as the running call sees it: with what the call itself has created."""
    value = vars(module)[name]
    if value.__class__ is not UninitializedParameter:
        return value
    pending = current_frame().updates.get((id(value), "becomes"))
    becomes = value.becomes if pending is None else pending[2]
    if becomes is None:
        return value
    # A second holder of the same parameter gets it as well.
    module.update_buffer(name, becomes)
    return becomes


def install_parameter(module: "Module", name: str, parameter: Parameter) -> None:
    """Put what a call has created in its place, unless another thread was first."""
    value = vars(module)[name]
    if value.__class__ is UninitializedParameter:
        value.becomes = value.becomes or parameter
        setattr(module, name, value.becomes)
