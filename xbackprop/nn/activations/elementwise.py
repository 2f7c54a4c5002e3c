"""What elementwise activations share: the class around a pair of ops, and its checks."""

import numbers
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import Op
from xbackprop.module import Module, describe_layer


class Elementwise(Module):
    """An activation that is a pair of ops; a subclass names them, and the options they take.

    The forward op is called with the input and the values of the attributes in ``options``, the
    backward op with the gradient and what the forward op saved.
    """

    samples_apart = True

    forward_op: ClassVar[Op]
    backward_op: ClassVar[Op]
    options: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply the function to every element."""
        check_float(self, x)
        options = self.options
        return self.forward_op(x, *[getattr(self, name) for name in options] if options else ())

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Multiply by the derivative of the function."""
        return self.backward_op(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


def check_float(layer: Module, x: Any) -> None:
    """Refuse what is no array of floats; layers without parameters ask nothing else of it."""
    if not hasattr(x, "dtype"):
        layer.check_device("x", x, x)
    if x.dtype.kind != "f":
        raise TypeError(
            f"{describe_layer(layer)} expects x of a float dtype; got {x.dtype}. "
            "Call x.astype('float32')."
        )


def refuse_inplace(name: str, inplace: bool) -> bool:
    """Refuse ``inplace=True``, which would change arrays that another backward holds.

    Returns False, the only value of the attribute.
    """
    if inplace:
        raise NotImplementedError(f"{name}(inplace=True): layers never write into their input")
    return False


def as_number(layer: str, name: str, value: Any) -> float:
    """Return a constructor's argument as float, and refuse what is no real number."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{layer} expects {name} to be a number; got {type(value).__name__}")
    return float(value)
