"""The work of one call of an op: floating-point operations, and bytes read and written."""

import inspect
from typing import Any

from xbackprop.backend.array_module import is_array
from xbackprop.dispatch import ArraySpec, OpCall
from xbackprop.observe.profiling.counting import formula_flops
from xbackprop.testing.structures import leaves


def count_flops(call: OpCall) -> int | None:
    """Return the floating-point operations of a call; None where nobody has counted them.

    An op that says its ``flops`` counts its products, a multiplication and an addition for each
    pair of numbers, as PyTorch's ``FlopCounterMode`` does; what it does to single elements beside
    them is left out. Any other op is counted by its formula, see
    :mod:`xbackprop.observe.profiling.counting`.

    Parameters
    ----------
    call : OpCall
        About to run, or done.

    Returns
    -------
    int or None
    """
    bound = inspect.signature(call.op.reference).bind(*call.args, **call.options)
    bound.apply_defaults()
    if call.op.flops is None:
        arguments = {name: _spec(value) for name, value in bound.arguments.items()}
        return formula_flops(call.op, arguments)
    options = {name: _spec(value) for name, value in bound.kwargs.items()}
    return call.op.flops(*(_spec(value) for value in bound.args), **options)


def count_bytes(call: OpCall, result: Any) -> int:
    """Return the bytes that a call read and wrote.

    Parameters
    ----------
    call : OpCall
        Done.
    result : object
        Of it.

    Returns
    -------
    int
        What the kernel declares that served the call; else the size of every array that the call
        was given or made, each once. Arrays inside of the call are not seen.
    """
    kernel = call.op.select(call.device, call.args)
    if kernel is not None and kernel.bytes_moved is not None:
        return kernel.bytes_moved(*(_spec(value) for value in call.args))
    arrays = {
        id(leaf): leaf.nbytes
        for _, leaf in leaves((call.args, call.options, result), "")
        if is_array(leaf)
    }
    return sum(arrays.values())


def _spec(value: Any) -> Any:
    return ArraySpec(value.shape, value.dtype) if is_array(value) else value
