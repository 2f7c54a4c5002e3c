"""The checks of the layer protocol: each takes a Subject and raises AssertionError."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import get_array_module, is_array
from xbackprop.backend.device import CPU, device_of
from xbackprop.backend.transfer import to_host, transfer_log
from xbackprop.module import Module
from xbackprop.testing.composites import Between, Twice
from xbackprop.testing.gradients import check_gradients
from xbackprop.testing.structures import (
    BufferSnapshot,
    arrays,
    backward_of_all_inputs,
    is_float,
    leaves,
    transform,
)
from xbackprop.testing.subject import Run, Subject, expect_equal, gradients_of
from xbackprop.testing.tolerances import TOLERANCES


def _gradients(subject: Subject) -> None:
    check_gradients(subject.module(np.float64), *subject.inputs(np.float64), rng=subject.rng)


def _gradients_in_evaluation(subject: Subject) -> None:
    module = subject.module(np.float64).eval()
    check_gradients(module, *subject.inputs(np.float64), rng=subject.rng, max_elements=0)


def _gradients_of_one_sample(subject: Subject) -> None:
    if subject.has_batch:
        inputs = subject.batch_of(1, subject.inputs(np.float64))
        check_gradients(subject.module(np.float64), *inputs, rng=subject.rng, max_elements=0)


def _gradients_between_other_layers(subject: Subject) -> None:
    inputs = subject.inputs(np.float64)
    layer = subject.module(np.float64)
    network = Between(layer, inputs, rng=subject.rng)
    check_gradients(network, *inputs, rng=subject.rng, max_elements=0)


def _gradients_when_used_twice(subject: Subject) -> None:
    network = Twice(subject.module(np.float64))
    inputs = subject.inputs(np.float64) + subject.inputs(np.float64, draw=1)
    check_gradients(network, *inputs, rng=subject.rng, max_elements=0)


def _batch_of_none(subject: Subject) -> None:
    if not subject.has_batch:
        return
    module, inputs = subject.module(), subject.batch_of(0, subject.inputs())
    run = subject.run(module, inputs)
    for position, value in enumerate(inputs):
        expected = dict(leaves(value, f"gradient of input[{position}]"))
        for path, leaf in expected.items():
            received = run.parts.get(path)
            if is_float(leaf) and (received is None or received.shape != leaf.shape):
                got = None if received is None else received.shape
                raise AssertionError(f"{path}: expected shape {leaf.shape}, received {got}")
    for name, gradient in gradients_of(module).items():
        if gradient is not None and gradient.any():
            raise AssertionError(f"gradient of parameter {name!r}: expected zeros")


def _writes_into_nothing(subject: Subject) -> None:
    module, inputs = subject.module(), subject.inputs()
    parameters = {name: parameter.data for name, parameter in module.named_parameters()}
    watched = arrays(inputs, "input") | arrays(parameters, "parameter")
    before = {name: to_host(array).copy() for name, array in watched.items()}
    output, saved = module.forward(*inputs)
    for name, expected in before.items():
        expect_equal(expected, watched[name], f"{name} after forward")
    grad_output = subject.gradient_for(output)
    # The arrays themselves are held here: backward lets go of `saved`, and must not write first.
    more = arrays(saved, "saved") | arrays(output, "output") | arrays(grad_output, "grad_output")
    before |= {name: to_host(array).copy() for name, array in more.items()}
    watched |= more
    backward_of_all_inputs(module, grad_output, saved, len(inputs))
    for name, expected in before.items():
        expect_equal(expected, watched[name], f"{name} after backward")


def _interleaved_forwards(subject: Subject) -> None:
    """Forward a, forward b, backward a, backward b is what both give one after the other."""
    inputs = subject.inputs(), subject.inputs(draw=1)
    module = subject.module()
    apart = []
    for number, values in enumerate(inputs):
        output, saved = module.forward(*values)
        grad = subject.gradient_for(output, draw=number)
        grads = backward_of_all_inputs(module, grad, saved, len(values))
        apart.append(Run(output, grads, {}))
    gradients = gradients_of(module)

    module = subject.module()
    calls = [module.forward(*values) for values in inputs]
    for number, (output, saved) in enumerate(calls):
        grad = subject.gradient_for(output, draw=number)
        grads = backward_of_all_inputs(module, grad, saved, len(inputs[number]))
        apart[number].expect(Run(output, grads, {}), "of interleaved calls")
    tolerance = TOLERANCES["float32"].reordered
    Run((), (), gradients).expect(Run((), (), gradients_of(module)), "of both", tolerance)


def _gradients_add_up(subject: Subject) -> None:
    first, second = subject.inputs(), subject.inputs(draw=1)
    alone = [subject.module(), subject.module()]
    for number, (module, inputs) in enumerate(zip(alone, (first, second), strict=True)):
        subject.run(module, inputs, draw=number)
    both = subject.module()
    counts: dict[str, list[int]] = {}
    for number, inputs in enumerate((first, second)):
        state = BufferSnapshot(both)
        output, saved = both.forward(*inputs)
        grad_output = subject.gradient_for(output, draw=number)
        backward_of_all_inputs(both, grad_output, saved, len(inputs))
        state.restore()
        for name, parameter in both.named_parameters():
            counts.setdefault(name, []).append(parameter.contributions)
    pair = [gradients_of(module) for module in alone]
    for name, received in gradients_of(both).items():
        one, two = (gradients[name] for gradients in pair)
        expected = None if one is None or two is None else one + two
        expect_equal(
            expected,
            received,
            f"gradient of parameter {name!r} after two backwards (they must add)",
            TOLERANCES["float32"].reordered,
        )
        if counts[name][1] != 2 * counts[name][0]:
            raise AssertionError(
                f"contributions of parameter {name!r}: {counts[name][0]} after one backward, "
                f"expected twice that after two, received {counts[name][1]}"
            )


def _saved_is_used_once(subject: Subject) -> None:
    module, inputs = subject.module(), subject.inputs()
    output, saved = module.forward(*inputs)
    grad_output = subject.gradient_for(output)
    kept = module.backward(grad_output, saved, keep=True)  # type: ignore[call-arg]
    again = module.backward(grad_output, saved)
    Run((), kept, {}).expect(Run((), again, {}), "in a second backward after keep=True")
    _expect_runtime_error(
        lambda: module.backward(grad_output, saved), "a second backward without keep=True"
    )
    _expect_runtime_error(
        lambda: module.backward(grad_output, None), "a backward without what forward saved"
    )


def _stale_saved_is_refused(subject: Subject) -> None:
    module, inputs = subject.module(), subject.inputs()
    for name, parameter in module.named_parameters():
        output, saved = module.forward(*inputs)
        grad_output = subject.gradient_for(output)
        parameter.mark_changed()

        def call(grad_output: Any = grad_output, saved: Any = saved) -> Any:
            return module.backward(grad_output, saved)

        _expect_runtime_error(call, f"a backward after parameter {name!r} changed")


def _expect_runtime_error(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except RuntimeError:
        return
    raise AssertionError(f"{what}: expected RuntimeError, received a result")


def _call_is_forward(subject: Subject) -> None:
    module, inputs = subject.module(), subject.inputs()
    state = BufferSnapshot(module)
    called = module(*inputs)
    state.restore()
    output, _ = module.forward(*inputs)
    Run(output, (), {}).expect(Run(called, (), {}), "of layer(x), beside forward(x)")


def _without_input_gradient(subject: Subject) -> None:
    module, inputs = subject.module(), subject.inputs()
    full = subject.run(module, inputs)
    module.zero_grad()
    output, saved = module.forward(*inputs)
    result = module.backward(subject.gradient_for(output), saved, input_grad=False)
    for name, gradient in gradients_of(module).items():
        expect_equal(
            full.parts[f"gradient of parameter {name!r}"],
            gradient,
            f"gradient of parameter {name!r} with input_grad=False",
            TOLERANCES["float32"].reordered,  # another kernel may serve what is wanted alone
        )
    if result is not None:  # a module may return it all the same, but then the right one
        results = list(result) if isinstance(result, tuple) else [result]
        for name, gradient in leaves(results, "gradient of input"):
            expect_equal(full.parts[name], gradient, f"{name} with input_grad=False")


def _keeps_dtype(subject: Subject) -> None:
    for dtype in (np.float32, np.float64):
        module, inputs = subject.module(dtype), subject.inputs(dtype)
        for name, value in subject.run(module, inputs).parts.items():
            found = getattr(value, "dtype", None)
            if found is not None and found.kind == "f" and found != dtype:
                raise AssertionError(f"{name}: expected {np.dtype(dtype)}, received {found}")


def _stays_on_device(subject: Subject) -> None:
    module, inputs = subject.module(), subject.inputs()
    grad_output = subject.gradient_for(module(*inputs))
    with transfer_log() as log:
        output, saved = module.forward(*inputs)
        grads = backward_of_all_inputs(module, grad_output, saved, len(inputs))
    crossed = [event for event in log.events if event.kind not in ("launch", "peer_copy")]
    if crossed:
        told = "; ".join(str(event) for event in crossed)
        raise AssertionError(f"forward and backward must not leave the device: {told}")
    found = arrays(output, "output") | arrays(grads, "gradient of input")
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of parameter {name!r}"] = parameter.grad
    for name, array in found.items():
        if device_of(array) != subject.device:
            raise AssertionError(
                f"{name}: expected on {subject.device}, received on {device_of(array)}"
            )


def _strided_arrays(subject: Subject) -> None:
    """Inputs that are views with gaps give what contiguous ones give."""
    expected = subject.run(subject.module(), subject.inputs())
    module = subject.module()
    output, saved = module.forward(*transform(subject.inputs(), _with_gaps))
    grad_output = transform(subject.gradient_for(output), _with_gaps)
    grads = backward_of_all_inputs(module, grad_output, saved, len(subject.inputs()))
    received = Run(output, grads, gradients_of(module))
    expected.expect(received, "of arrays with gaps", TOLERANCES["float32"].reordered)


def _with_gaps(array: Any) -> Any:
    if not is_array(array) or array.ndim == 0:
        return array
    with device_of(array).activate():
        xp = get_array_module(array)
        wide = xp.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype=array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]


def _read_only_arrays(subject: Subject) -> None:
    if subject.device == CPU:
        _check_host_variant(subject, _read_only, "of read-only arrays")


def _big_endian_arrays(subject: Subject) -> None:
    if subject.device == CPU:
        _check_host_variant(subject, _big_endian, "of big-endian arrays")


def _check_host_variant(subject: Subject, change: Callable[[Any], Any], what: str) -> None:
    expected = subject.run(subject.module(), subject.inputs())
    module, inputs = subject.module(), transform(subject.inputs(), change)
    output, saved = module.forward(*inputs)
    grad_output = transform(subject.gradient_for(output), change)
    grads = backward_of_all_inputs(module, grad_output, saved, len(inputs))
    received = Run(output, grads, gradients_of(module))
    expected.expect(received, what, TOLERANCES["float32"].reordered)


def _read_only(array: Any) -> Any:
    if not is_array(array):
        return array
    frozen = array.copy()
    frozen.flags.writeable = False
    return frozen


def _big_endian(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder(">")) if is_array(array) else array


def _config_round_trip(subject: Subject) -> None:
    from xbackprop.nn import catalogue, from_config

    module = subject.module()
    types = {type(part) for part in module.modules()} - set(catalogue().values())
    plain = json.loads(json.dumps(module.config()))
    rebuilt = from_config(plain, types=types)
    if rebuilt.config() != module.config():
        raise AssertionError(
            f"config(): expected {module.config()} from the rebuilt layer, received "
            f"{rebuilt.config()}"
        )
    # What is frozen is no part of an architecture.
    for parameter, fresh in zip(module.parameters(), rebuilt.parameters(), strict=True):
        fresh.requires_grad = parameter.requires_grad
    rebuilt.load_state_dict(module.state_dict())
    rebuilt.load_extra_state(module.extra_state())
    _expect_same_behaviour(subject, module, rebuilt, "of the layer rebuilt from config()")


def _copies(subject: Subject) -> None:
    original = subject.module()
    inputs = subject.inputs()
    subject.run(original, inputs)  # with gradients and counters in it
    _expect_same_behaviour(subject, original, copy.deepcopy(original), "of a deepcopy")
    unpickled = pickle.loads(pickle.dumps(original)).to(subject.device)
    _expect_same_behaviour(subject, original, unpickled, "of an unpickled copy")
    taken = {id(parameter.data) for parameter in original.parameters()}
    for name, parameter in copy.deepcopy(original).named_parameters():
        if id(parameter.data) in taken:
            raise AssertionError(f"a deepcopy shares the storage of parameter {name!r}")


def _expect_same_behaviour(subject: Subject, original: Module, other: Module, what: str) -> None:
    inputs = subject.inputs()
    for training in (True, False):
        original.train(training)
        other.train(training)
        subject.run(original, inputs).expect(subject.run(other, inputs), what)
    original.train()


LAYER_CHECKS: dict[str, Callable[[Subject], None]] = {
    "gradients": _gradients,
    "gradients in evaluation": _gradients_in_evaluation,
    "gradients of one sample": _gradients_of_one_sample,
    "gradients between other layers": _gradients_between_other_layers,
    "gradients when used twice": _gradients_when_used_twice,
    "batch of none": _batch_of_none,
    "writes into nothing": _writes_into_nothing,
    "interleaved forwards": _interleaved_forwards,
    "gradients add up": _gradients_add_up,
    "saved is used once": _saved_is_used_once,
    "stale saved is refused": _stale_saved_is_refused,
    "layer(x) is forward(x)[0]": _call_is_forward,
    "without input gradient": _without_input_gradient,
    "keeps dtype": _keeps_dtype,
    "stays on device": _stays_on_device,
    "arrays with gaps": _strided_arrays,
    "read-only arrays": _read_only_arrays,
    "big-endian arrays": _big_endian_arrays,
    "config round trip": _config_round_trip,
    "copies": _copies,
}
