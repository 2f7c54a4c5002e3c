"""Every row of the table, on every device: protocol, formulas, equal bits."""

import builtins
import inspect
import math
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.dispatch import Op, OpCall, registered_ops
from xbackprop.testing import LAYER_CHECKS, TOLERANCES, check_layer
from xbackprop.testing.structures import backward_of_all_inputs, leaves, moved, random_like

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))

WITHOUT_FORMULA = {
    "xbackprop.nn.perceptron.perceptron_gradients": "the formulas of its layers, one after the "
    "other; test_whole_network.py compares it with them",
    "xbackprop.nn.perceptron.canonical_gradients": "the same; test_perceptron_kernels.py",
    "xbackprop.nn.perceptron_epoch.perceptron_epoch": "those and Adam's, batch by batch; "
    "test_perceptron_kernels.py compares it with the layers and the optimizer",
    **dict.fromkeys(
        (f"xbackprop.nn.losses.canonical.canonical_loss_{way}" for way in ("forward", "backward")),
        "four losses by name; test_sklearn.py compares them with scikit-learn's",
    ),
    "xbackprop.ops.random_bits.random_bits": "ten rounds of integer mixing; a known-answer test "
    "(test_ops.py) says what they must give",
    "xbackprop.ops.random_bits.next_call": "a sum of 64 bits in two words; test_ops.py",
    "xbackprop.ops.random_bits.random_kept": "those bits, compared with a bound",
    **dict.fromkeys(
        (
            f"xbackprop.nn.pooling.{op}_{direction}"
            for op in (
                "maximum.max_pool",
                "average.avg_pool",
                "power.lp_pool",
                "adaptive_average.adaptive_avg_pool",
                "adaptive_maximum.adaptive_max_pool",
                "unpooling.max_unpool",
                "fractional.fractional_max_pool",
            )
            for direction in ("forward", "backward")
        ),
        "windows with options; test_pooling.py compares with loops over all their elements",
    ),
    **dict.fromkeys(
        (
            "xbackprop.ops.scatter.max_by_index",
            "xbackprop.nn.embedding.reductions.bag_max_forward",
            "xbackprop.nn.embedding.reductions.bag_max_backward",
        ),
        "the maximum of each bag; test_scatter.py and test_embedding.py compare it with loops",
    ),
    **dict.fromkeys(
        ("xbackprop.nn.upsample.upsample_forward", "xbackprop.nn.upsample.upsample_backward"),
        "taps of seven modes; test_upsample.py compares with loops over outputs and taps",
    ),
    **dict.fromkeys(
        (
            f"xbackprop.nn.recurrent.{kind}.{kind}_{direction}"
            for kind in ("rnn", "lstm", "gru")
            for direction in ("forward", "backward")
        ),
        "a recursion over time; test_recurrent.py compares it with loops over single sequences",
    ),
    **dict.fromkeys(
        ("xbackprop.ops.packing.pack_rows", "xbackprop.ops.packing.pad_rows"),
        "a loop over steps; test_recurrent.py says where every element goes",
    ),
    "xbackprop.nn.losses.ctc.ctc_loss_forward": "a recursion over time; test_losses.py compares it "
    "with the sum over all alignments, one by one",
    "xbackprop.nn.losses.ctc.ctc_loss_backward": "a recursion over time; the rows compare it with "
    "central differences",
}

# Rows are watched, which fused layers are not: test_fusion.py and test_remade.py evaluate these.
ELSEWHERE = {
    *(
        f"xbackprop.nn.fusion.bias_{name}_{direction}"
        for name in ("relu", "gelu_tanh")
        for direction in ("forward", "backward")
    ),
    *(f"xbackprop.nn.remade.gelu_tanh_linear_{way}" for way in ("forward", "backward")),
    # In the place of layers: test_whole_network.py and test_perceptron_kernels.py.
    "xbackprop.nn.perceptron.perceptron_gradients",
    "xbackprop.nn.perceptron.canonical_gradients",
    "xbackprop.nn.perceptron_epoch.perceptron_epoch",
    # Of xbackprop.sklearn: test_sklearn.py.
    "xbackprop.nn.losses.canonical.canonical_loss_forward",
    "xbackprop.nn.losses.canonical.canonical_loss_backward",
}


@every_case
def test_protocol(case: Case, xb_device: Device) -> None:
    # The second stand-in shows what lands on the wrong device; its numbers are the first one's,
    # where every element of every gradient is compared. Random directions remain.
    known = ["gradients"] if xb_device == Device("fake", 1) else []
    if case.is_network and xb_device.kind == "fake":
        known = [name for name in LAYER_CHECKS if name.startswith("gradients")]
        known.remove("gradients add up")  # no differences in it
    elif case.is_network:  # whose layers pass these one by one
        known = ["gradients of one sample", "gradients when used twice"]
    check_layer(case.make, case.inputs, devices=[xb_device], has_batch=case.has_batch, skip=known)


@every_case
def test_every_device_gives_the_same_bits(case: Case, xb_device: Device) -> None:
    expected, received = results_on("cpu", case), results_on(xb_device, case)
    assert expected.keys() == received.keys()
    tolerance = TOLERANCES["float32"].peer if xb_device.kind == "cuda" else 0.0
    for name, array in expected.items():
        assert array.dtype == received[name].dtype, name
        np.testing.assert_allclose(
            received[name], array, rtol=tolerance, atol=tolerance, err_msg=name
        )
        if not tolerance:
            assert array.tobytes() == received[name].tobytes(), name  # -0.0 and 0.0 differ too


def results_on(device: Any, case: Case) -> dict[str, np.ndarray]:
    """Two forwards and backwards, so that random counters move."""
    found: dict[str, np.ndarray] = {}
    with xb.use_device(device) as place, xb.use_references():  # kernels have tests of their own
        module = case.make()
        for number in range(2):
            inputs = moved(float32_inputs(case, number), place)
            output, saved = module.forward(*inputs)
            grad = moved(random_like(output, np.random.default_rng(number)), place)
            grads = backward_of_all_inputs(module, grad, saved, len(inputs))
            parts = [*leaves(output, f"output {number}"), *leaves(grads, f"grads {number}")]
            found |= {name: xb.to_host(leaf) for name, leaf in parts if leaf is not None}
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                found[name] = xb.to_host(parameter.grad)
        return found | module.state_dict() | module.extra_state()


def float32_inputs(case: Case, seed: int) -> list[np.ndarray]:
    made = case.inputs(np.random.default_rng(seed))
    inputs = made if isinstance(made, tuple) else (made,)
    return [np.asarray(x, np.float32) if np.asarray(x).dtype.kind == "f" else x for x in inputs]


class Gradients:
    """Counts what backward ops give, None not counted."""

    def __init__(self) -> None:
        self.count = 0

    def before(self, call: OpCall) -> None:
        pass

    def after(self, call: OpCall, result: Any) -> None:
        if call.depth == 0 and call.op.name.endswith("_backward"):
            results = result if isinstance(result, tuple) else (result,)
            self.count += sum(part is not None for part in results)


@pytest.mark.parametrize(
    "case", [case for case in CASES if "frozen" in case.name], ids=lambda c: c.name
)
def test_no_gradient_of_what_is_frozen_is_computed(case: Case) -> None:
    module = case.make().to("cpu")
    inputs = float32_inputs(case, 0)
    wanted = sum(parameter.requires_grad for parameter in module.parameters())
    for input_grad in (True, False):
        gradients = Gradients()
        output, saved = module.forward(*inputs)
        with xb.observe(gradients):
            module.backward(output, saved, input_grad=input_grad)
        assert gradients.count == wanted + len(inputs) * input_grad


# --- formulas -----------------------------------------------------------------------------


class FormulaObserver:
    """Evaluates the formula of every op call in NumPy, and compares."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.evaluated: set[str] = set()
        self._before: list[dict[str, Any]] = []

    def before(self, call: OpCall) -> None:
        # Copied before the call: an op that changed its argument could not hide it.
        self._before.append(plain_arguments(call))

    def after(self, call: OpCall, result: Any) -> None:
        arguments = self._before.pop()
        name = f"{call.op.reference.__module__}.{call.op.name}"
        self.seen.add(name)
        if call.op.formula is None or not formula_shows(call.op, arguments):
            return
        if call.op.name.endswith("_forward"):
            result = result[0]
        results = result if isinstance(result, tuple) else (result,)
        expected = evaluate(call.op.formula, arguments)
        assert len(expected) <= len(results), f"{name}: the formula gives more than the op"
        for (target, value), received in zip(expected.items(), results, strict=False):
            if received is None:
                continue
            is_float = received.dtype.kind == "f"
            tolerance = TOLERANCES[str(received.dtype)].peer if is_float else 0.0
            np.testing.assert_allclose(
                xb.to_host(received),
                value,
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{name}: {target} of the formula {call.op.formula!r}",
            )
            assert received.shape == np.shape(value), f"{name}: shape of {target}"
        self.evaluated.add(name)


def plain_arguments(call: OpCall) -> dict[str, Any]:
    bound = inspect.signature(call.op.reference).bind(*call.args, **call.options)
    bound.apply_defaults()
    return {
        name: np.array(xb.to_host(value)) if hasattr(value, "dtype") else value
        for name, value in bound.arguments.items()
    }


def formula_shows(op: Op, arguments: dict[str, Any]) -> bool:
    """A formula shows the plain case: every option at its default, nothing absent."""
    for name, parameter in inspect.signature(op.reference).parameters.items():
        value = arguments[name]
        if parameter.default is inspect.Parameter.empty:
            if value is None:
                return False
        elif isinstance(value, np.ndarray) or value != parameter.default:
            return False
    return True


def evaluate(formula: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the assignments of a formula; the names on the left are its results, in order."""
    known = {**vars(np), "erf": np.vectorize(math.erf), "len": len, "__builtins__": builtins}
    results = {}
    for assignment in formula.split(";"):
        target, _, expression = assignment.partition("=")
        results[target.strip()] = eval(expression.strip(), known, arguments)
    return results


def watch(case: Case) -> FormulaObserver:
    observer = FormulaObserver()
    module = case.make()
    inputs = moved(float32_inputs(case, 0), xb.default_device())
    with xb.observe(observer):
        output, saved = module.forward(*inputs)
        grad = moved(random_like(output, np.random.default_rng(0)), xb.default_device())
        module.backward(grad, saved)
    return observer


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.is_plain], ids=lambda c: c.name.replace(" ", "-")
)
def test_formulas_are_what_ops_compute(case: Case, xb_device: Device) -> None:
    watch(case)


def test_every_op_has_a_formula_that_some_row_evaluates() -> None:
    watched = [watch(case) for case in CASES if case.is_plain]
    evaluated = set().union(*(observer.evaluated for observer in watched))
    seen = set().union(*(observer.seen for observer in watched))
    ours = {
        name: op
        for name, op in registered_ops().items()
        if name.startswith(("xbackprop.nn.", "xbackprop.ops."))
    }
    assert ours.keys() - seen == ELSEWHERE, "ops that no row calls"
    assert {name for name, op in ours.items() if op.formula is None} == set(WITHOUT_FORMULA)
    not_shown = ours.keys() - evaluated - set(WITHOUT_FORMULA)
    assert not_shown == ELSEWHERE - set(WITHOUT_FORMULA), "formulas nobody evaluated"


def test_every_layer_has_a_row() -> None:
    rows = {type(part) for case in CASES for part in case.make().modules()}
    abstract = {xb.nn.Loss}
    assert set(xb.nn.catalogue().values()) - rows - abstract == set()


def test_names_of_rows_differ() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)
