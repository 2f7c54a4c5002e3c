"""Reading a PyTorch module's constructor options back from its attributes."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from xbackprop.interop.torch.tensors import array_of
from xbackprop.module import Module

# Where an option is no attribute of its own name: dotted paths below the module, `*` for every
# child. All must agree, for the module computes with each of them.
_ENCODER_LAYER = {
    "d_model": ("linear1.in_features",),
    "nhead": ("self_attn.num_heads",),
    "dim_feedforward": ("linear1.out_features",),
    "dropout": ("dropout.p", "dropout1.p", "dropout2.p", "self_attn.dropout"),
    "layer_norm_eps": ("norm1.eps", "norm2.eps"),
    "batch_first": ("self_attn.batch_first",),
    "bias": ("linear1.bias", "linear2.bias", "self_attn.in_proj_bias", "norm1.bias", "norm2.bias"),
}
_CROSS_ATTENTION = {
    "nhead": ("multihead_attn.num_heads",),
    "dropout": ("dropout3.p", "multihead_attn.dropout"),
    "layer_norm_eps": ("norm3.eps",),
    "batch_first": ("multihead_attn.batch_first",),
    "bias": ("multihead_attn.in_proj_bias", "norm3.bias"),
}
_DECODER_LAYER = {
    name: paths + _CROSS_ATTENTION.get(name, ()) for name, paths in _ENCODER_LAYER.items()
}
_OF_ALL_LAYERS = {
    name: tuple(f"encoder.layers.*.{path}" for path in _ENCODER_LAYER.get(name, (name,)))
    + tuple(f"decoder.layers.*.{path}" for path in _DECODER_LAYER.get(name, (name,)))
    for name in (*_ENCODER_LAYER, "activation", "norm_first")
}
_ELSEWHERE: dict[str, dict[str, tuple[str, ...]]] = {
    "Hardtanh": {"min_value": (), "max_value": ()},  # deprecated names of min_val and max_val
    "PairwiseDistance": {"p": ("norm",)},
    "MultiheadAttention": {"bias": ("in_proj_bias", "out_proj.bias"), "add_bias_kv": ("bias_k",)},
    "TransformerEncoderLayer": _ENCODER_LAYER,
    "TransformerDecoderLayer": _DECODER_LAYER,
    "TransformerEncoder": {"encoder_layer": ("layers.*",)},
    "TransformerDecoder": {"decoder_layer": ("layers.*",)},
    "Transformer": {
        **_OF_ALL_LAYERS,
        "num_encoder_layers": ("encoder.num_layers",),
        "num_decoder_layers": ("decoder.num_layers",),
        "layer_norm_eps": (
            *_OF_ALL_LAYERS["layer_norm_eps"],
            *("encoder.norm.eps", "decoder.norm.eps"),
        ),
        # A custom one has its place in the module, but not all that is read above.
        **{"custom_encoder": (), "custom_decoder": ()},
    },
}
# Where a layer lives and what it draws; PyTorch's deprecated words, which `reduction` has said.
_NO_OPTIONS = {"self", "device", "dtype", "rng", "size_average", "reduce"}

Convert = Callable[[Any, str], Module]


def read_options(module: Any, cls: type[Module], path: str, convert: Convert) -> dict[str, Any]:
    """Return the arguments for ``cls`` that build what a PyTorch module is.

    Parameters
    ----------
    module : torch.nn.Module
        Of the class of the same name.
    cls : type
        Ours.
    path : str
        Of the module in the whole, for messages.
    convert : callable
        Takes a module in an attribute, and its path.

    Returns
    -------
    dict of str to object

    Raises
    ------
    NotImplementedError
        Names an option that cannot be read, or that only PyTorch's class has and that is in use.
    """
    elsewhere = _ELSEWHERE.get(cls.__name__, {})
    ours = _option_names(cls)
    theirs = {name for base in type(module).__mro__[:-1] for name in _option_names(base)}
    options = {}
    for name in ours:
        paths = elsewhere.get(name, (name,))
        values = [
            _read(owner, attribute, join(path, where), convert)
            for where in paths
            for owner, attribute in _find(module, where)
        ]
        if values and all(_is_same(value, values[0]) for value in values):
            options[name] = values[0]
        elif values:
            raise NotImplementedError(
                f"{describe(module, path)}: {', '.join(paths)} differ; ours has one {name} for all"
            )
        elif paths and name in theirs and not name.startswith("_"):  # `_weight` is among the values
            raise NotImplementedError(f"{describe(module, path)}: the option {name} cannot be read")
    _refuse_unknown(module, path, ours)
    return options


def join(path: str, name: str) -> str:
    """Return the path of what is called ``name`` below a path."""
    return f"{path}.{name}" if path else name


def describe(module: Any, path: str) -> str:
    """Name a module at the start of a message."""
    return f"from_torch: {path or 'the module'} ({type(module).__name__})"


def _option_names(cls: type) -> dict[str, Any]:
    """Return the named options of a constructor with their defaults."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    constructor = cls.__init__  # type: ignore[misc]  # of this very class
    return {
        name: parameter.default
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind in kinds and name not in _NO_OPTIONS
    }


def _refuse_unknown(module: Any, path: str, ours: dict[str, Any]) -> None:
    for name, default in _option_names(type(module)).items():
        if name not in ours and getattr(module, name, default) != default:
            raise NotImplementedError(
                f"{describe(module, path)}: ours has no option {name}; here it is "
                f"{getattr(module, name)!r}"
            )


def _find(owner: Any, where: str) -> Iterator[tuple[Any, str]]:
    """Yield the owners of what a dotted path leads to, with its name there."""
    name, _, rest = where.partition(".")
    names = list(owner._modules) if name == "*" else [name]
    for name in names:
        if hasattr(owner, name):
            yield from _find(getattr(owner, name), rest) if rest else [(owner, name)]


def _read(owner: Any, attribute: str, path: str, convert: Convert) -> Any:
    """Return an attribute as our constructors take it."""
    value = getattr(owner, attribute)
    if attribute in owner._parameters:  # `bias`: whether there is one
        return value is not None
    if attribute in owner._buffers:  # the weights of a loss
        return None if value is None else array_of(path, value)
    if attribute in owner._modules:
        return None if value is None else convert(value, path)
    if callable(value):
        return _name_of_function(value)
    return tuple(value) if isinstance(value, (tuple, list)) else value


def _name_of_function(function: Any) -> Any:
    """Return "relu" for PyTorch's relu; a constructor of ours knows its functions by name."""
    import torch

    name = getattr(function, "__name__", "")
    return name if getattr(torch.nn.functional, name, None) is function else function


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, Module) and isinstance(other, Module):
        return value.config() == other.config()
    return bool(value is other or value == other)
