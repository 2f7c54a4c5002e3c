"""Weights there and back: keys, shapes and layouts are PyTorch's already."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xbackprop.interop.torch.files import read_safetensors
from xbackprop.interop.torch.tensors import array_of, import_torch
from xbackprop.module import Module, UninitializedParameter
from xbackprop.module.state import walk, walk_parameters

# PyTorch counts the batches of a batch norm since this version of its state, and reads older ones.
_COUNT, _VERSION_WITH_COUNT = "num_batches_tracked", 2


class IncompatibleKeys(NamedTuple):
    """What a state and a model do not have in common, as PyTorch's ``load_state_dict`` says it.

    Parameters
    ----------
    missing_keys : list of str
        The model's, which the state lacks: their values stayed as they were.
    unexpected_keys : list of str
        The state's, which the model lacks: they were left out.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def to_torch_state_dict(model: Module, *, as_tensors: bool = False) -> dict[str, Any]:
    """Return what PyTorch's ``load_state_dict`` takes.

    Parameters
    ----------
    model : Module
        Any layer, loss or network, on any device.
    as_tensors : bool, default False
        Return tensors on the CPU instead of NumPy arrays; needs PyTorch.

    Returns
    -------
    dict of str to numpy.ndarray or torch.Tensor
        Parameters and persistent buffers in PyTorch's order, as fresh contiguous copies, a shared
        one under each of its names.

    Raises
    ------
    RuntimeError
        For a lazy layer that has no values yet.

    Examples
    --------
    >>> import xbackprop as xb
    >>> from xbackprop.interop.torch import to_torch_state_dict
    >>> model = xb.nn.Sequential(xb.nn.Linear(2, 3), xb.nn.BatchNorm1d(3))
    >>> [(key, array.shape) for key, array in to_torch_state_dict(model).items()]
    [('0.weight', (3, 2)), ('0.bias', (3,)), ('1.weight', (3,)), ('1.bias', (3,)),
     ('1.running_mean', (3,)), ('1.running_var', (3,)), ('1.num_batches_tracked', ())]

    As a file that PyTorch reads with ``safetensors.torch.load_file``:

    >>> import os, tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(to_torch_state_dict(model), os.path.join(folder, "model.safetensors"))
    """
    empty = [
        path
        for path, parameter in walk_parameters(model)
        if isinstance(parameter, UninitializedParameter)
    ]
    if empty:
        raise RuntimeError(
            f"to_torch_state_dict: {', '.join(empty)} of a lazy layer have no values yet. "
            "Run one forward first."
        )
    values = model.state_dict()
    state = {key: values[key] for key in _keys(model)}
    if not as_tensors:
        return state
    torch = import_torch("to_torch_state_dict(as_tensors=True)")
    return {key: torch.from_numpy(array) for key, array in state.items()}


def from_torch_state_dict(
    model: Module, state: Mapping[str, Any] | str | os.PathLike[str], *, strict: bool = True
) -> IncompatibleKeys:
    """Copy the weights of the same network in PyTorch into a model.

    Parameters
    ----------
    model : Module
        On any device; keeps its dtypes, to which floats are cast.
    state : mapping of str to array or tensor, or path
        What a PyTorch module's ``state_dict()`` returns, NumPy arrays under the same keys, anything
        with ``__array__`` or DLPack, or a ``.safetensors`` file. PyTorch is not imported.
    strict : bool, default True
        Refuse missing and unexpected keys; mis-shaped ones are always refused.

    Returns
    -------
    IncompatibleKeys
        Both lists are empty where ``strict``.

    Raises
    ------
    ValueError
        Names every missing, unexpected and mis-shaped key; nothing was changed then. For a pickle
        (``.pt``, ``.pth``, ``.bin``) it holds the lines that convert it.
    TypeError
        Names a tensor without values that NumPy can hold: float8, sparse, quantized, meta.

    Notes
    -----
    float16 and bfloat16 are widened exactly. As in PyTorch, a state from before batch norms counted
    their batches may lack ``num_batches_tracked``.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> from xbackprop.interop.torch import from_torch_state_dict
    >>> layer = xb.nn.Linear(2, 1)
    >>> from_torch_state_dict(layer, {"weight": np.ones((1, 2)), "scale": 3.0}, strict=False)
    IncompatibleKeys(missing_keys=['bias'], unexpected_keys=['scale'])
    >>> from_torch_state_dict(layer, {"weight": np.ones((2, 1))})
    Traceback (most recent call last):
        ...
    ValueError: load_state_dict changed nothing: missing: bias; weight has shape (2, 1), expected
    (1, 2)
    """
    if isinstance(state, (str, os.PathLike)):
        given: dict[str, Any] = dict(read_safetensors(state))
    elif isinstance(state, Mapping):
        given = {key: array_of(str(key), values) for key, values in state.items()}
    else:
        raise TypeError(
            "from_torch_state_dict expects a mapping from keys to arrays, or the path of a "
            f"safetensors file; got {type(state).__name__}"
        )
    given |= _uncounted_batches(model, given, getattr(state, "_metadata", {}))
    model.load_state_dict(given, strict=strict)
    expected = dict.fromkeys(_keys(model))
    return IncompatibleKeys(
        [key for key in expected if key not in given], [key for key in given if key not in expected]
    )


def _keys(model: Module) -> Iterator[str]:
    """Yield the keys in PyTorch's order: of each module the parameters, then the buffers."""
    for path, part in walk(model):
        for own in (part.own_parameters(), part.own_buffers(persistent=True)):
            for name, _ in own:
                yield f"{path}.{name}" if path else name


def _uncounted_batches(
    model: Module, given: dict[str, Any], metadata: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the model's own counts where an old state has none."""
    counts = {}
    for path, part in walk(model):
        key = f"{path}.{_COUNT}" if path else _COUNT
        is_old = (metadata.get(path, {}).get("version") or 0) < _VERSION_WITH_COUNT
        if is_old and key not in given and _COUNT in dict(part.own_buffers(persistent=True)):
            counts[key] = part.read_buffer(_COUNT)
    return counts
