"""`check_gradients` and `check_layer` find what is wrong: one faulty layer per check."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.module import Module, Parameter
from xbackprop.testing import LAYER_CHECKS, check_gradients, check_layer


class Scale(Module):
    """``y = w x``, done right; the faulty layers below change one thing each."""

    def __init__(self, size: int = 3, device: Any = None) -> None:
        self.w = Parameter(xb.asarray(np.linspace(0.5, 2, size), device=device))

    def forward(self, x: Any) -> tuple[Any, Any]:
        x = self.check_input("x", x, self.w.value)
        return x * self.w.value, (x, self.w.value)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        x, w = saved
        self.w.accumulate((grad_output * x).sum(axis=0))
        return grad_output * w if input_grad else None


def draw(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(4, 3))


def test_a_right_layer_passes_on_every_device(xb_device: Device) -> None:
    check_layer(Scale, draw, devices=[xb_device])


class WrongSign(Scale):
    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return -super().backward(grad_output, saved)


class MissingGradient(Scale):
    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output * saved[1] if input_grad else None


class OverwrittenGradient(Scale):
    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        self.w.zero_grad()
        return super().backward(grad_output, saved)


class MutatedInput(Scale):
    def forward(self, x: Any) -> tuple[Any, Any]:
        result = super().forward(x)
        x += 1
        return result


class MutatedGradient(Scale):
    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        result = super().backward(grad_output, saved)
        grad_output *= 2
        return result


class MutatedSaved(Scale):
    def forward(self, x: Any) -> tuple[Any, Any]:
        return super().forward(x)[0], (x.copy(), self.w.value)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        result = super().backward(grad_output, saved)
        saved[0][...] = 0
        return result


class MutatedParameter(Scale):
    def forward(self, x: Any) -> tuple[Any, Any]:
        result = super().forward(x)
        self.w.data[...] = self.w.data * 2
        return result


class KeepsActivations(Scale):
    def forward(self, x: Any) -> tuple[Any, Any]:
        self.x = x
        return super().forward(x)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return super().backward(grad_output, (self.x, saved[1]))


class OnlyForBatches(Scale):
    """Averages where it should sum: right for a batch of one."""

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        x, w = saved
        self.w.accumulate((grad_output * x).sum(axis=0) / max(len(x), 1))
        return grad_output * w if input_grad else None


class OneSampleSqueezed(Scale):
    """Right except for a batch of one, where a squeeze takes the batch axis too."""

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        x, w = saved
        factor = 0.5 if len(x) == 1 else 1.0
        self.w.accumulate((grad_output * x).sum(axis=0) * factor)
        return grad_output * w if input_grad else None


class NothingIsTooLittle(Scale):
    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        result = super().backward(grad_output, saved)
        return result if len(result) else result.reshape(-1)


class OtherInEvaluation(Scale):
    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        result = super().backward(grad_output, saved)
        return result if self.training else 2 * result


class NoInputGradient(Scale):
    """Skips too much when the input's gradient is not wanted."""

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return super().backward(grad_output, saved) if input_grad else None


class DoublePrecision(Module):
    """Computes in float64 whatever comes."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x.astype(np.float64) * np.float64(2), ()

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output * 2


class NumpyOnDevice(Module):
    def forward(self, x: Any) -> tuple[Any, Any]:
        output = np.exp(x)
        return output, (output,)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output * saved[0]


class ReadsBack(Module):
    def forward(self, x: Any) -> tuple[Any, Any]:
        factor = 2.0 if not x.size or float(x.reshape(-1)[0]) < 1e9 else 3.0
        return x * factor, factor

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output * saved


class OtherWhenCalled(Scale):
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return super().__call__(*inputs, **options) * 2


class NeedsContiguous(Module):
    """Reads memory in the order it lies in."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        first = x.reshape(-1)[:1] * 0 + (1 if x.flags.c_contiguous else 2)
        return x * first, first

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output * saved


class WritesAndPutsBack(Module):
    def forward(self, x: Any) -> tuple[Any, Any]:
        x += 0
        return x * 1, ()

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output


class ForgetsArgument(Scale):
    """Its argument is not written into config()."""

    def __init__(self, size: int = 3, device: Any = None, factor: float = 1.0) -> None:
        super().__init__(size)
        self.factor = factor
        self.__dict__["_constructor_arguments"] = ((), {})

    def forward(self, x: Any) -> tuple[Any, Any]:
        output, saved = super().forward(x)
        return output * self.factor, saved

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return super().backward(grad_output * self.factor, saved)


class ShallowCopies(Scale):
    def __deepcopy__(self, memo: Any) -> Any:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied


def unwrapped(cls: type[Module]) -> type[Module]:
    """Take the call frame off `backward`, as a base class outside Module would have it."""

    class Unwrapped(cls):  # type: ignore[misc, valid-type]
        pass

    def backward(self: Any, grad_output: Any, saved: Any, **options: Any) -> Any:
        options.pop("keep", None)
        content = saved.content if hasattr(saved, "content") else saved
        return cls.backward.__wrapped__(self, grad_output, content, **options)

    Unwrapped.backward = backward
    return Unwrapped


# The layer, the check that must find it, and what the message says.
FAULTS = [
    (WrongSign, "gradients between other layers", r"input 'inputs\[0\]' along a random"),
    (WrongSign, "gradients", r"wrong gradient of input 'x' in 12 of 12 .* The sign is wrong"),
    (MissingGradient, "gradients", r"parameter 'w' .* received no gradient at all"),
    (OnlyForBatches, "gradients", r"parameter 'w' .* Every element is 0.25 times"),
    (OtherInEvaluation, "gradients in evaluation", r"is 2 times what it should be"),
    (OneSampleSqueezed, "gradients of one sample", r"parameter 'w' along a random direction"),
    (KeepsActivations, "gradients when used twice", r"parameter 'layer.w'"),
    (NothingIsTooLittle, "batch of none", r"expected shape \(0, 3\), received \(0,\)"),
    (MutatedInput, "writes into nothing", r"input\[0\] after forward: expected"),
    (MutatedGradient, "writes into nothing", r"grad_output after backward: expected"),
    (MutatedSaved, "writes into nothing", r"saved\[0\] after backward: expected"),
    (MutatedParameter, "writes into nothing", r"parameter\['w'\] after forward: expected"),
    (KeepsActivations, "interleaved forwards", r"gradient of parameter 'w' of both: expected"),
    (OverwrittenGradient, "gradients add up", r"after two backwards \(they must add\)"),
    (NoInputGradient, "without input gradient", r"parameter 'w' with input_grad=False: expected"),
    (DoublePrecision, "keeps dtype", r"output: expected float32, received float64"),
    (OtherWhenCalled, "layer(x) is forward(x)[0]", r"output of layer\(x\), beside forward"),
    (NeedsContiguous, "arrays with gaps", r"output of arrays with gaps: expected"),
    (lambda: ForgetsArgument(factor=3.0), "config round trip", r"rebuilt from config"),
    (ShallowCopies, "copies", r"shares the storage of parameter 'w'"),
    (unwrapped(Scale), "saved is used once", r"a second backward without keep=True: expected"),
    (unwrapped(Scale), "stale saved is refused", r"parameter 'w' changed: expected RuntimeError"),
]


@pytest.mark.parametrize(("make", "check", "message"), FAULTS)
def test_faults_are_found(make: Any, check: str, message: str, xb_device: Device) -> None:
    others = set(LAYER_CHECKS) - {check}
    with pytest.raises(AssertionError, match=message) as caught:
        check_layer(make, draw, devices=[xb_device], skip=others)
    assert f" on {xb_device}, {check}: " in str(caught.value)


def test_only_the_checks_that_run_on_a_host_may_have_no_fault_above() -> None:
    found = {check for _, check, _ in FAULTS}
    assert set(LAYER_CHECKS) - found == {
        "stays on device",  # the three tests below
        "read-only arrays",
        "big-endian arrays",  # the call frame makes them native: without that, nine rows fail
    }


def test_numpy_on_a_device_array_is_found() -> None:
    with pytest.raises(TypeError) as caught:
        check_layer(NumpyOnDevice, draw, devices=["cpu", "fake"])
    assert caught.value.__notes__ == ["NumpyOnDevice on fake:0, while checking: gradients"]


def test_reading_back_is_found_with_its_line() -> None:
    with pytest.raises(AssertionError, match=r"stays on device: .*test_testing.py:\d+: synchron"):
        check_layer(ReadsBack, draw, devices=["cpu", "fake"])


def test_writing_the_same_values_is_found() -> None:
    with pytest.raises(ValueError, match="read-only") as caught:
        check_layer(WritesAndPutsBack, draw, devices=["cpu"])
    assert caught.value.__notes__ == ["WritesAndPutsBack on cpu, while checking: read-only arrays"]


def test_unknown_names_of_checks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"skip expects names of checks, .* got gradient$"):
        check_layer(Scale, draw, skip=["gradient"])


# --- check_gradients ----------------------------------------------------------------------


def double(shape: Any, seed: int = 0) -> Any:
    return xb.asarray(np.random.default_rng(seed).normal(size=shape), dtype=np.float64)


def test_elements_and_directions_find_one_wrong_element(xb_device: Device) -> None:
    class OneWrong(Module):
        def forward(self, x: Any) -> tuple[Any, Any]:
            return x * x, (x,)

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            (x,) = saved
            grad = 2 * grad_output * x
            grad[1, 2] = grad[1, 2] + 0.5
            return grad

    with pytest.raises(AssertionError, match=r"in 1 of 12 elements. At \[1, 2\]: expected"):
        check_gradients(OneWrong(), double((3, 4)))
    with pytest.raises(AssertionError, match=r"along a random direction: expected"):
        check_gradients(OneWrong(), double((30, 40)))
    with pytest.raises(AssertionError, match=r"along a random direction: expected"):
        check_gradients(OneWrong(), double((3, 4)), max_elements=0)


@pytest.mark.parametrize("value", [0.0, 1e-7, -3e-6])
def test_a_kink_is_named(value: float, xb_device: Device) -> None:
    x = double((2, 3))
    x[1, 0] = value
    with pytest.raises(
        AssertionError, match=r"has a kink at input 'x', \[1, 0\].* Move that input"
    ):
        check_gradients(nn.ReLU(), x)
    with pytest.raises(AssertionError, match=r"has a kink at input 'x', along a random direction"):
        check_gradients(nn.ReLU(), x, max_elements=0)


def test_a_jump_is_named() -> None:
    class Step(Module):
        def forward(self, x: Any) -> tuple[Any, Any]:
            return np.where(x >= 0, 1.0, 0.0), x.shape

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return np.zeros(saved)

    check_gradients(Step(), np.array([0.5, -0.5]))
    with pytest.raises(AssertionError, match=r"the function jumps at input 'x', \[1\]"):
        check_gradients(Step(), np.array([0.5, 0.0]))


def test_a_steep_function_is_no_kink() -> None:
    class WrongCube(Module):
        def forward(self, x: Any) -> tuple[Any, Any]:
            return 1e3 * x * x * x, (x,)

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return grad_output * 2e3 * saved[0] * saved[0]

    with pytest.raises(AssertionError, match=r"Every element is 0.6667 times"):
        check_gradients(WrongCube(), np.array([2.0, -30.0]))


def test_float32_is_refused(xb_device: Device) -> None:
    with pytest.raises(TypeError, match=r"float64; input 'x' of ReLU is float32. Call x.astype"):
        check_gradients(nn.ReLU(), xb.asarray([1.0]))
    with pytest.raises(TypeError, match=r"parameter 'weight' of Linear is float32"):
        check_gradients(nn.Linear(2, 2), double((3, 2)))


def test_a_result_of_lower_precision_is_found() -> None:
    class Single(Module):
        def forward(self, x: Any) -> tuple[Any, Any]:
            return x.astype(np.float32), ()

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return grad_output

    with pytest.raises(AssertionError, match="output is float32 though all inputs are float64"):
        check_gradients(Single(), np.ones(3))


def test_what_cannot_be_repeated_is_named() -> None:
    class Noisy(Module):
        def forward(self, x: Any) -> tuple[Any, Any]:
            return x * np.random.default_rng().normal(), ()

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return grad_output

    with pytest.raises(AssertionError, match=r"Noisy is not repeatable: .* in a buffer"):
        check_gradients(Noisy(), np.ones(3))


def test_random_layers_repeat_and_the_module_stays_as_it_was(xb_device: Device) -> None:
    network = nn.Sequential(
        nn.Linear(3, 4, dtype=np.float64), nn.Dropout(0.5), nn.Linear(4, 1, dtype=np.float64), rng=0
    )
    network[0].weight.accumulate(double((4, 3)))
    state, extra = network.state_dict(), network.extra_state()
    x = double((5, 3))
    before = xb.to_host(x).copy()
    check_gradients(network, x)
    for name, array in (network.state_dict() | network.extra_state()).items():
        np.testing.assert_array_equal(array, (state | extra)[name])
    assert network[0].weight.contributions == 1
    assert network[2].weight.grad is None
    np.testing.assert_array_equal(xb.to_host(x), before)


def test_forward_that_is_not_finite_is_named() -> None:
    with pytest.raises(AssertionError, match="ReLU: forward gives nan"):
        check_gradients(nn.ReLU(), np.array([np.nan]))


class Mix(Module):
    """Several inputs, an option, several outputs: ``(a + k b, a[i])`` with nested results."""

    def forward(self, a: Any, pair: Any, index: Any, *, k: float = 1.0) -> tuple[Any, Any]:
        b, c = pair
        return (a + k * b, {"c": c * c}), (c, index, k)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        c, _, k = saved
        grad, inner = grad_output
        return grad, (k * grad, 2 * c * inner["c"]), None


def test_nested_inputs_and_outputs_and_options(xb_device: Device) -> None:
    index = xb.asarray([0, 1])
    inputs = (double((2, 3)), (double((2, 3), 1), double(4, 2)), index)
    check_gradients(Mix(), *inputs)
    check_gradients(Mix(), *inputs, options={"k": 3.0})

    class WrongInside(Mix):
        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            grad, (first, second), _ = super().backward(grad_output, saved)
            return grad, (first, -second), None

    with pytest.raises(AssertionError, match=r"wrong gradient of input 'pair'\[1\] in 4 of 4"):
        check_gradients(WrongInside(), *inputs)

    class TooMany(Mix):
        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return (*super().backward(grad_output, saved)[:2], index)

    with pytest.raises(AssertionError, match=r"input 'index' is not of a float dtype"):
        check_gradients(TooMany(), *inputs)

    class TooFew(Mix):
        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return super().backward(grad_output, saved)[:2]

    with pytest.raises(AssertionError, match=r"a tuple of 3 gradients, one per input; got 2 of"):
        check_gradients(TooFew(), *inputs)

    class NoneForFloat(Mix):
        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return None, *super().backward(grad_output, saved)[1:]

    with pytest.raises(AssertionError, match=r"backward returned no gradient of input 'a'"):
        check_gradients(NoneForFloat(), *inputs)


def test_frozen_parameters_get_no_gradient() -> None:
    layer = nn.Linear(3, 2, dtype=np.float64, device="cpu").requires_grad_(False)
    check_gradients(layer, np.ones((4, 3)))

    class Stubborn(Scale):
        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            self.w.requires_grad = True
            result = super().backward(grad_output, saved)
            self.w.requires_grad = False
            return result

    stubborn = Stubborn(device="cpu").to(dtype=np.float64).requires_grad_(False)
    with pytest.raises(AssertionError, match=r"parameter 'w' is frozen .* received a gradient"):
        check_gradients(stubborn, np.ones((4, 3)))


def test_an_unused_parameter_needs_no_gradient() -> None:
    class Unused(Scale):
        def forward(self, x: Any) -> tuple[Any, Any]:
            return x * 2, ()

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            return grad_output * 2

    check_gradients(Unused(device="cpu").to(dtype=np.float64), np.ones((4, 3)))


def test_large_and_small_values_get_steps_that_fit() -> None:
    check_gradients(nn.MSELoss("sum"), np.array([1e5, 1e-6]), np.array([-1e5, 2.0]))
