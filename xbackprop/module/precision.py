"""Half precision of a model: which numbers its layers compute with, and where they are rounded.

Between the layers of a model in half precision all floats are halves. A layer is given what its
class names in ``in_half``; the outermost call takes and returns float32, so that losses, metrics
and people see nothing else.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import resolve_device
from xbackprop.backend.half import HALF_NAMES, half_dtype
from xbackprop.backend.tf32 import check_tf32, tf32_products
from xbackprop.module.lazy import UninitializedParameter

if TYPE_CHECKING:
    from xbackprop.module.base import Module

PRECISIONS = ("float32", "tf32", *HALF_NAMES)
_WIDE = np.dtype(np.float32)
_CAST = frozenset(("float32", *HALF_NAMES))  # float64 is what a layer refuses by itself


class Rounded(NamedTuple):
    """What a forward saved, and the dtype in which its inputs came."""

    saved: Any
    source: np.dtype


class Precision:
    """How one layer of a model in half precision computes.

    Parameters
    ----------
    half : dtype
        float16 or bfloat16: of everything between layers.
    inputs : dtype
        Of the floats that the layer's ``forward`` and ``backward`` are given.
    output : dtype
        Of the floats that others get from it.
    """

    __slots__ = ("half", "inputs", "name", "output")

    def __init__(self, half: np.dtype, inputs: np.dtype, output: np.dtype) -> None:
        self.name = half.name
        self.half = half
        self.inputs = inputs
        self.output = output

    def forward(self, function: Callable[..., Any], *, is_outermost: bool) -> Callable[..., Any]:
        """Return a layer's ``forward`` between the casts of its inputs and of its output."""

        def forward(module: "Module", *inputs: Any, **options: Any) -> Any:
            source = _dtype_of((inputs, options)) or (_WIDE if is_outermost else self.half)
            known: dict[int, Any] = {}
            inputs = _cast(inputs, self.inputs, known)
            options = {name: _cast(value, self.inputs, known) for name, value in options.items()}
            output, saved = function(module, *inputs, **options)
            output = _cast(output, _WIDE if is_outermost else self.output, {})
            return output, Rounded(saved, source)

        return forward

    def backward(self, function: Callable[..., Any], *, is_outermost: bool) -> Callable[..., Any]:
        """Return a layer's ``backward``: the gradient of an input has the input's dtype."""

        def backward(module: "Module", grad_output: Any, saved: Any, **options: Any) -> Any:
            grad_output = _cast(grad_output, self.inputs, {})
            grads = function(module, grad_output, saved.saved, **options)
            return _cast(grads, saved.source, {})

        return backward


class TF32:
    """How a model computes whose products are TF32: outermost calls switch CuPy to it."""

    name = "tf32"

    def forward(self, function: Callable[..., Any], *, is_outermost: bool) -> Callable[..., Any]:
        """Return ``forward``, with products in TF32 where it is the outermost call."""
        return _in_tf32(function) if is_outermost else function

    backward = forward


def _in_tf32(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(module: "Module", *inputs: Any, **options: Any) -> Any:
        with tf32_products(module.device or resolve_device(None)):
            return function(module, *inputs, **options)

    return run


def set_precision(model: "Module", precision: str) -> None:
    """Let a model compute in half precision, beside float32 masters; in TF32; or in float32 again.

    Parameters
    ----------
    model : Module
        With float32 parameters. State dicts, checkpoints and gradients stay float32.
    precision : {"float32", "tf32", "bfloat16", "float16"}
        ``tf32``: on a GPU from Ampere on, products of float32 with operands of 10 bits.
        ``float16`` overflows above 65504 and loses gradients below 6e-8: scale the loss, with
        :class:`xbackprop.GradScaler` or by :class:`xbackprop.Trainer`, which does it by itself.

    Raises
    ------
    ValueError
        For another name.
    TypeError
        For parameters that are not float32.
    NotImplementedError
        For layers that half precision is not there for: ``max_norm``, and parameters that are read
        in half by one layer and in float32 by another. For ``tf32`` on anything but such a GPU.
    RuntimeError
        For lazy layers whose shapes are not known yet.
    ImportError
        For bfloat16 without the package ml_dtypes.

    Notes
    -----
    Layers whose work is matrix products (linear maps, convolutions, recurrent layers, attention)
    multiply halves, with sums in float32, and read their weights in half; embeddings read their
    table in half. All others, above all normalizations, softmax and losses, compute in float32
    from float32 parameters, and their result is rounded. These are the lists of
    ``torch.autocast``, which leaves such results in float32, though; here, as in llm.c, what
    passes between layers is half.

    References
    ----------
    Micikevicius et al., "Mixed precision training", ICLR 2018.
    Kalamkar et al., "A study of bfloat16 for deep learning training", arXiv:1905.12322.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(2, 1, rng=0)
    >>> xb.set_precision(model, "float16")
    >>> model.weight.data.dtype, model.weight.value.dtype, model(xb.asarray([[1.0, 2.0]])).dtype
    (dtype('float32'), dtype('float16'), dtype('float32'))
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"set_precision expects precision to be one of {', '.join(PRECISIONS)}; "
            f"got {precision!r}"
        )
    if precision == "tf32":
        check_tf32(model.device or resolve_device(None))
    half = half_dtype(precision) if precision in HALF_NAMES else None
    inside = _parts_of_layers(model)
    dtypes = _parameter_dtypes(model, half, inside)
    for parameter, dtype in dtypes.values():
        parameter.compute_in(dtype)
    for module in model.modules():
        module._precision = None
        if precision == "tf32":
            module._precision = TF32()
        elif half is not None and id(module) not in inside:
            module._precision = _precision_of(module, half)


def precision_of(model: "Module") -> str:
    """Return the name of the precision in which a model computes."""
    return "float32" if model._precision is None else model._precision.name


def _parameter_dtypes(model: "Module", half: np.dtype | None, inside: set[int]) -> dict[int, Any]:
    """Return for every parameter the dtype in which layers read it; change nothing yet."""
    chosen: dict[int, Any] = {}
    names = {id(module): name for name, module in model.named_modules()}
    for module in model.modules() if half is not None else ():
        _check_support(module, names[id(module)])
    for module in model.modules():
        reads_half = _kind(module) in ("half", "products") and id(module) not in inside
        dtype = half if reads_half else None
        for name, parameter in module.own_parameters():
            if half is not None and parameter.dtype != _WIDE:
                raise TypeError(
                    f"set_precision expects float32 parameters; {name} of "
                    f"{type(module).__name__} is {parameter.dtype}"
                )
            known = chosen.setdefault(id(parameter), (parameter, dtype))
            if known[1] is not dtype:
                raise NotImplementedError(
                    f"set_precision: {name} of {type(module).__name__} is shared by a layer that "
                    "reads its parameters in half precision and one that reads them in float32"
                )
    return chosen


def _check_support(module: "Module", path: str) -> None:
    where = f"{type(module).__name__} ({path})" if path else type(module).__name__
    if getattr(module, "max_norm", None) is not None and module.in_half == "products":
        raise NotImplementedError(
            f"set_precision: {where} with max_norm changes its table in the forward, which half "
            "copies do not follow"
        )
    for name, parameter in module.own_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise RuntimeError(
                f"set_precision: the shape of {name} of {where} is not known yet. Run one forward "
                "first."
            )


def _kind(module: "Module") -> str:
    """Return what a module does; one that is made of others passes halves on to them."""
    has_children = next(module.children(), None) is not None
    return "half" if module.in_half == "rounded" and has_children else module.in_half


def _parts_of_layers(model: "Module") -> set[int]:
    """Return the ids of modules that a layer uses inside: they are given what it computes with."""
    layers = (module for module in model.modules() if _kind(module) != "half")
    return {id(part) for layer in layers for part in layer.modules() if part is not layer}


def _precision_of(module: "Module", half: np.dtype) -> Precision:
    kind = _kind(module)
    return Precision(half, half if kind == "half" else _WIDE, _WIDE if kind == "float32" else half)


def _dtype_of(value: Any) -> np.dtype | None:
    """Return the dtype of the first float array among nested values."""
    if is_array(value):
        return value.dtype if value.dtype.name in _CAST else None
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((dtype for part in value if (dtype := _dtype_of(part)) is not None), None)
    return None


def _cast(value: Any, dtype: np.dtype, known: dict[int, Any]) -> Any:
    """Cast the float arrays among nested values; what was one array stays one array."""
    if is_array(value) or isinstance(value, np.generic):  # NumPy's sums are no arrays
        if value.dtype.name not in _CAST or value.dtype == dtype:
            return value
        if id(value) not in known:
            known[id(value)] = value.astype(dtype)
        return known[id(value)]
    if isinstance(value, (tuple, list)):
        parts = [_cast(part, dtype, known) for part in value]
        if all(part is before for part, before in zip(parts, value, strict=True)):
            return value
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return type(value)(parts)
    return value
