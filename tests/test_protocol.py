"""The call frame: paths, refused calls, state updates, inference, threads, `saved`, sharing."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.backend.fake import memory_of
from xbackprop.module import Module, Parameter, as_one_call
from xbackprop.testing import check_gradients


def batch(*shape: int, seed: int = 0, dtype: Any = np.float32) -> xb.Array:
    return xb.asarray(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def host(array: xb.Array) -> np.ndarray:
    return xb.to_host(array)


class Probe(Module):
    """Passes its input on and calls a function on the way."""

    def __init__(self, look: Any) -> None:
        self.look = look

    def forward(self, x: Any) -> tuple[Any, Any]:
        self.look(x)
        return x * 1, ()

    def backward(self, grad_output: Any, saved: Any) -> Any:
        return grad_output


class TwoBranches(Module):
    """A user's composite: one layer in two places, and its saved values treated as opaque."""

    def __init__(self, encoder: Module, head: Module) -> None:
        self.encoder = encoder
        self.head = head

    def forward(self, x: Any, y: Any) -> tuple[Any, Any]:
        first, saved_first = self.encoder.forward(x)
        second, saved_second = self.encoder.forward(y)
        output, saved_head = self.head.forward(first - second)
        return output, (saved_first, saved_second, saved_head)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        saved_first, saved_second, saved_head = saved
        grad = self.head.backward(grad_output, saved_head)
        first = self.encoder.backward(grad, saved_first, input_grad=input_grad)
        second = self.encoder.backward(-grad, saved_second, input_grad=input_grad)
        return first, second


# --- where it happened --------------------------------------------------------------------


def test_messages_name_the_layer_and_its_path(xb_device: Device) -> None:
    x = batch(4, 5)
    with pytest.raises(ValueError, match=r"^Linear expects x of shape \(\.\.\., 3\); got \(4, 5\)"):
        nn.Linear(3, 2)(x)
    deep = nn.Sequential(nn.Identity(), nn.Sequential({"act": nn.Tanh(), "fc": nn.Linear(3, 2)}))
    with pytest.raises(ValueError, match=r"^Linear \(Sequential\.1\.fc\) expects x of shape"):
        deep(x)
    own = TwoBranches(nn.Residual(nn.Linear(3, 3)), nn.Identity())
    with pytest.raises(ValueError, match=r"^Linear \(TwoBranches\.encoder\.module\) expects"):
        own(x, x)
    inside = nn.Recompute(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match=r"^Linear \(Recompute\.module\.0\) expects"):
        inside.forward(x)


def test_a_failed_call_leaves_the_frame_clean(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), rng=0)
    x = batch(2, 3)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^Linear \(Sequential\.0\) expects"):
            model.forward(batch(2, 4))
        _, saved = model.forward(x)
        with pytest.raises(Exception):  # noqa: B017, PT011  (each array module has its own)
            model.backward(batch(2, 7), saved)
    output, saved = model.forward(x)
    model.zero_grad()
    model.backward(output, saved)
    assert model[0].weight.contributions == 1
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):  # errstate is back as well
        np.log(np.zeros(1))


def test_arguments_by_name(xb_device: Device) -> None:
    """The device of the call is found in keywords, too."""
    layer, x = nn.Linear(3, 2, rng=0), batch(4, 3)
    with xb.use_device("cpu"):
        output, saved = layer.forward(x=x)
        np.testing.assert_array_equal(host(layer(x=x)), host(output))
        assert layer.backward(output, saved).shape == (4, 3)


def test_work_is_done_where_the_arrays_are(xb_device: Device) -> None:
    """Whatever the default device is."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 2), rng=0)
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0])
    x, target = batch(5, 3), xb.asarray([0, 1, 1, 0, 1])
    with xb.use_device("cpu"):
        output, saved = model.forward(x)
        value, loss_saved = loss.forward(output, target)
        grad = model.backward(loss.backward(1.0, loss_saved), saved)
    for array in (output, value, grad, *(p.grad for p in model.parameters())):
        assert xb.device_of(array) == xb_device


def test_warnings_are_silent_in_layers_as_on_a_gpu() -> None:
    layer = nn.Linear(1, 1, dtype=np.float64, device="cpu")
    layer.weight.data = np.array([[1e308]])
    with np.errstate(all="raise"):
        output, saved = layer.forward(np.array([[1e308]]))
        grad = layer.backward(np.array([[1e308]]), saved)
    assert np.isinf(output).all()
    assert np.isinf(grad).all()


# --- state updates ------------------------------------------------------------------------


def counter(dropout: nn.Dropout) -> int:
    return int(dropout.extra_state()["random_state"][2])


def test_a_refused_batch_changes_nothing(xb_device: Device) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(3, 2), rng=0)
    before = model.state_dict() | model.extra_state()
    for call in (model.forward, model):
        with pytest.raises(ValueError, match=r"Linear \(Sequential\.3\) expects"):
            call(batch(2, 4))
    after = model.state_dict() | model.extra_state()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_with_a_refused_batch_is_the_run_without_it(xb_device: Device) -> None:
    def run(*, refuse: bool) -> dict[str, np.ndarray]:
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2), rng=0)
        optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loss = nn.MSELoss()
        for step in range(4):
            if refuse and step == 2:
                with pytest.raises(ValueError, match="Linear"):
                    model.forward(batch(4, 7))
            output, saved = model.forward(batch(4, 3, seed=step))
            _, loss_saved = loss.forward(output, batch(4, 2, seed=100 + step))
            optimizer.zero_grad()
            model.backward(loss.backward(1.0, loss_saved), saved)
            optimizer.step()
        return model.state_dict() | model.extra_state()

    expected, received = run(refuse=False), run(refuse=True)
    for name, array in expected.items():
        assert array.tobytes() == received[name].tobytes(), name


def test_updates_are_written_when_the_outermost_forward_returns(xb_device: Device) -> None:
    dropout = nn.Dropout(0.5, rng=0)
    buffer = dropout.random_state
    during: list[int] = []
    model = nn.Sequential(dropout, dropout, Probe(lambda x: during.append(counter(dropout))))
    x = xb.asarray(np.ones(64))
    output, _ = model.forward(x)
    assert during == [0]
    assert counter(dropout) == 2
    assert dropout.random_state is buffer  # the existing buffer was written
    # Both uses in one call drew masks of their own: a quarter is left, not a half.
    assert set(np.unique(host(output)).tolist()) == {0.0, 4.0}
    assert 4 <= np.count_nonzero(host(output)) <= 28


def test_evaluation_draws_nothing(xb_device: Device) -> None:
    dropout = nn.Dropout(0.5, rng=0).eval()
    x = batch(4, 4)
    np.testing.assert_array_equal(host(dropout(x)), host(x))
    assert counter(dropout) == 0


def test_inference_in_training_mode_moves_the_counter_once(xb_device: Device) -> None:
    dropout = nn.Dropout(0.5, rng=0)
    x = batch(64)
    first, second = host(dropout(x)), host(dropout(x))
    assert counter(dropout) == 2
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("depth", [1, 2])
def test_recompute_is_the_plain_run_bit_for_bit(depth: int, xb_device: Device) -> None:
    """Masks too, though the backward runs the forward anew; and counters move once."""

    def run(wrap: Any) -> dict[str, np.ndarray]:
        inner = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.5))
        model = nn.Sequential(nn.Dropout(0.2), wrap(inner), nn.Linear(8, 2), rng=0)
        found = {}
        for step in range(3):
            output, saved = model.forward(batch(4, 3, seed=step))
            found[f"output {step}"] = host(output)
            found[f"grad {step}"] = host(model.backward(output, saved))
        for number, parameter in enumerate(model.parameters()):
            found[f"gradient {number}"] = host(parameter.grad)
        counters = [module for module in model.modules() if isinstance(module, nn.Dropout)]
        return found | {f"counter {i}": np.array(counter(c)) for i, c in enumerate(counters)}

    def wrapped(inner: Module) -> Module:
        for _ in range(depth):
            inner = nn.Recompute(inner)
        return inner

    expected, received = run(lambda inner: inner), run(wrapped)
    assert expected["counter 0"] == 3
    for name, array in expected.items():
        assert array.tobytes() == received[name].tobytes(), name


def test_recompute_may_be_run_backward_much_later(xb_device: Device) -> None:
    """Its second run sees the counters of its first, whatever happened in between."""
    model = nn.Recompute(nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6), rng=0))
    plain = model.module
    x, g = batch(4, 6), batch(4, 6, seed=1)
    state = model.extra_state()
    _, saved = plain.forward(x)
    expected = host(plain.backward(g, saved))
    model.load_extra_state(state)
    _, saved = model.forward(x)
    model(x)
    other, saved_other = model.forward(x)
    model.backward(other, saved_other)
    np.testing.assert_array_equal(host(model.backward(g, saved)), expected)
    assert counter(plain[0]) == 3


# --- inference keeps nothing --------------------------------------------------------------


def test_inference_holds_one_activation_at_a_time() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Watched(Module):
        def forward(self, x: Any) -> tuple[Any, Any]:
            nonlocal most
            output = x + 1
            alive.append(weakref.ref(output))
            most = max(most, sum(ref() is not None for ref in alive))
            return output, (output,)

        def backward(self, grad_output: Any, saved: Any) -> Any:
            return grad_output

    class Composite(Module):
        """Keeps its children's saved values in a list, as a user would."""

        def __init__(self) -> None:
            self.parts = nn.Sequential(*(Watched() for _ in range(6)))

        def forward(self, x: Any) -> tuple[Any, Any]:
            kept = []
            for part in self.parts:
                x, saved = part.forward(x)
                kept.append(saved)
            assert kept == [None] * 6 or frame_saves
            return x, kept

    frame_saves = False
    with xb.use_device("cpu"):
        Composite()(np.ones(3))
    gc.collect()
    assert most == 2  # input and output of the layer that runs
    assert sum(ref() is not None for ref in alive) == 0

    frame_saves, most = True, 0
    alive.clear()
    output, saved = Composite().forward(np.ones(3))
    assert most == 6  # training does keep them, or this test could not fail
    del output, saved


LAYERS, WIDTH, ROWS = 12, 32, 64
ACTIVATION_BYTES = ROWS * WIDTH * 4


def peak_of(call: Any) -> float:
    """Return the peak beyond what is held now, in activations."""
    memory = memory_of(0)
    before = memory.used
    memory.reset_peak()
    call()
    return (memory.peak - before) / ACTIVATION_BYTES


def test_peak_memory_of_inference_and_training() -> None:
    with xb.use_device("fake"):
        layers = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
        model = nn.Sequential(*layers, rng=0)
        small = nn.Recompute(model)
        x, g = batch(ROWS, WIDTH), batch(ROWS, WIDTH, seed=1)

        def train(network: Module) -> None:
            _, saved = network.forward(x)
            network.backward(g, saved, input_grad=False)

        train(model)  # gradients are allocated once
        inference, training = peak_of(lambda: model(x)), peak_of(lambda: train(model))
        held = memory_of(0).used
        recomputing = peak_of(lambda: train(small))
        assert inference <= 3
        # Linear saves its input and Tanh its output, the same array for two neighbours.
        assert 2 * LAYERS - LAYERS <= training <= 2 * LAYERS + 4
        assert recomputing <= training + 2
        assert memory_of(0).used == held  # everything was let go of


def test_backward_lets_go_on_the_way() -> None:
    with xb.use_device("fake"):
        used: list[int] = []
        parts: list[Module] = []
        for _ in range(6):
            look = _WatchBackward(used)
            parts += [look, nn.Linear(WIDTH, WIDTH)]
        model = nn.Sequential(*parts, rng=0)
        x, g = batch(ROWS, WIDTH), batch(ROWS, WIDTH, seed=1)
        for _ in range(2):  # the first backward also allocates the gradients
            used.clear()
            _, saved = model.forward(x)
            model.backward(g, saved)
        assert len(used) == 6
        # Each of the last layers' inputs is gone by the time the first layers run.
        assert used[0] - used[-1] >= 3 * ACTIVATION_BYTES


class _WatchBackward(Module):
    def __init__(self, used: list[int]) -> None:
        self.used = used

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x * 1, ()

    def backward(self, grad_output: Any, saved: Any) -> Any:
        self.used.append(memory_of(0).used)
        return grad_output


# --- threads ------------------------------------------------------------------------------


def in_threads(*calls: Any) -> list[Any]:
    """Run calls at the same time; raise what one of them raised."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]
    return results


def test_a_shared_model_predicts_in_threads(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Dropout(0.5), nn.Linear(7, 2), rng=0)
    model.eval()
    inputs = [batch(9, 5, seed=seed) for seed in range(8)]
    expected = [host(model(x)) for x in inputs]

    def predict(x: xb.Array) -> list[np.ndarray]:
        with xb.use_device(xb_device):
            return [host(model(x)) for _ in range(20)]

    for outputs, wanted in zip(
        in_threads(*(lambda x=x: predict(x) for x in inputs)), expected, strict=True
    ):
        for output in outputs:
            np.testing.assert_array_equal(output, wanted)


def test_inference_in_one_thread_leaves_training_in_another_alone() -> None:
    meet = threading.Barrier(2, timeout=30)
    with xb.use_device("cpu"):
        model = nn.Sequential(nn.Linear(3, 3), Probe(lambda x: (meet.wait(), meet.wait())), rng=0)
        x = batch(4, 3)

    def fail() -> None:
        with pytest.raises(ValueError, match=r"^Linear expects"):  # no path of the other thread
            nn.Linear(9, 1, device="cpu")(x)
        model(x)

    (_, saved), _ = in_threads(lambda: model.forward(x), fail)
    assert model.backward(x, saved).shape == x.shape


def test_random_layers_in_threads_draw_from_whole_counters() -> None:
    with xb.use_device("cpu"):
        dropout = nn.Dropout(0.5, rng=0)
        x = np.ones(32, np.float32)
        possible = set()
        state = dropout.extra_state()
        for _ in range(200):
            possible.add(dropout(x).tobytes())
        dropout.load_extra_state(state)
    outputs = in_threads(*(lambda: [dropout(x).tobytes() for _ in range(25)] for _ in range(8)))
    assert {output for part in outputs for output in part} <= possible
    assert 1 <= counter(dropout) <= 200


# --- saved --------------------------------------------------------------------------------


def test_saved_is_consumed_and_keep_keeps_it(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2)), rng=0)
    x, g = batch(5, 3), batch(5, 2)
    _, saved = model.forward(x)
    first = host(model.backward(g, saved, keep=True))
    second = host(model.backward(g, saved, keep=True))
    third = host(model.backward(g, saved))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert repr(saved) == "Saved(consumed)"
    assert [p.contributions for p in model.parameters()] == [3] * 4
    with pytest.raises(RuntimeError, match=r"^Sequential.backward: this `saved` was already used"):
        model.backward(g, saved)


def test_backward_without_saved_says_what_to_call() -> None:
    layer = nn.Linear(3, 2, device="cpu")
    x, g = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    for arguments in ((g,), (g, None)):
        with pytest.raises(RuntimeError, match=r"output, saved = layer.forward\(x\)"):
            layer.backward(*arguments)
    with pytest.raises(TypeError, match=r"expects the `saved` of Linear.forward; got ndarray"):
        layer.backward(g, layer(x))
    with pytest.raises(TypeError, match=r"expects the `saved` of Linear.forward; got tuple"):
        layer.backward(g, layer.forward(x))


def changes(model: Module, optimizer: Any) -> dict[str, Any]:
    return {
        "an optimizer's step": optimizer.step,
        "load_state_dict": lambda: model.load_state_dict(model.state_dict()),
        "to another dtype": lambda: model.to(dtype=np.float64),
        "new data": lambda: setattr(model[0].bias, "data", model[0].bias.data + 1),
    }


@pytest.mark.parametrize(
    "change", ["an optimizer's step", "load_state_dict", "to another dtype", "new data"]
)
def test_saved_of_older_parameters_is_refused(change: str, xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), rng=0)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    x = batch(4, 3)
    output, saved = model.forward(x)
    model.backward(output, saved)
    output, saved = model.forward(x)
    changes(model, optimizer)[change]()
    with pytest.raises(RuntimeError, match=r"Sequential.backward: parameter '0\..*' changed since"):
        model.backward(output, saved)
    output, saved = model.forward(x if change != "to another dtype" else x.astype(np.float64))
    model.backward(output, saved)


def test_changes_elsewhere_do_not_matter(xb_device: Device) -> None:
    model, other = nn.Linear(3, 2, rng=0), nn.Linear(3, 2, rng=1)
    output, saved = model.forward(batch(4, 3))
    other.load_state_dict(other.state_dict())
    nn.Linear(3, 3, rng=2)
    model.backward(output, saved)
    assert model.weight.contributions == 1


# --- shared layers and tied weights -------------------------------------------------------


def test_shared_and_tied_in_a_composite(xb_device: Device) -> None:
    encoder = nn.Sequential(nn.Linear(3, 3, dtype=np.float64), nn.Tanh())
    head = nn.Linear(3, 3, dtype=np.float64)
    head.weight = encoder[0].weight
    model = TwoBranches(encoder, head)
    a, b = batch(4, 3, dtype=np.float64), batch(4, 3, seed=1, dtype=np.float64)
    check_gradients(model, a, b)
    output, saved = model.forward(a, b)
    model.backward(output, saved)
    assert encoder[0].weight.contributions == 3
    assert [name for name, _ in model.named_parameters()] == [
        "encoder.0.weight",
        "encoder.0.bias",
        "head.bias",
    ]


def test_interleaved_forwards_of_a_network(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2), rng=0)
    a, b = batch(4, 3), batch(6, 3, seed=1)
    ga, gb = batch(4, 2, seed=2), batch(6, 2, seed=3)
    _, saved = model.forward(a)
    expected_a = host(model.backward(ga, saved))
    _, saved = model.forward(b)
    expected_b = host(model.backward(gb, saved))
    gradients = [host(parameter.grad).copy() for parameter in model.parameters()]
    model.zero_grad()
    _, saved_a = model.forward(a)
    _, saved_b = model.forward(b)
    np.testing.assert_array_equal(host(model.backward(ga, saved_a)), expected_a)
    np.testing.assert_array_equal(host(model.backward(gb, saved_b)), expected_b)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(host(parameter.grad), gradient)


# --- modules of users ---------------------------------------------------------------------


def test_a_module_without_input_grad_works_anywhere(xb_device: Device) -> None:
    for layers in (
        [Probe(len), nn.Linear(3, 2)],
        [nn.Linear(3, 2), Probe(len)],
        [Probe(len)],
        [nn.Residual(Probe(len)), nn.Linear(3, 2)],
    ):
        model = nn.Sequential(*layers, rng=0)
        output, saved = model.forward(batch(4, 3))
        assert model.backward(output, saved, input_grad=False) is None or len(layers) == 1
        output, saved = model.forward(batch(4, 3))
        assert model.backward(output, saved).shape == (4, 3)
    probe = Probe(len)
    output, saved = probe.forward(batch(4, 3))
    assert probe.backward(output, saved, input_grad=False) is output


class Doubled(nn.Linear):
    """Extends both directions by super()."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        output, saved = super().forward(x)
        return 2 * output, saved

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return super().backward(2 * grad_output, saved, input_grad=input_grad)


class OnlyForward(nn.Linear):
    """Extends one direction; the other is inherited."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        output, saved = super().forward(x)
        return output + 1, saved


@pytest.mark.parametrize("cls", [Doubled, OnlyForward])
def test_subclasses_call_super(cls: Any, xb_device: Device) -> None:
    layer = cls(3, 2, dtype=np.float64)
    x = batch(4, 3, dtype=np.float64)
    check_gradients(layer, x)
    check_gradients(nn.Sequential(nn.Tanh(), layer, nn.Tanh()), x)
    output, saved = layer.forward(x)
    layer.backward(output, saved, keep=True, input_grad=False)
    layer.backward(output, saved)
    with pytest.raises(RuntimeError, match="already used"):
        layer.backward(output, saved)
    with pytest.raises(ValueError, match=rf"^{cls.__name__} \(Sequential\.0\) expects"):
        nn.Sequential(layer)(batch(4, 5, dtype=np.float64))


def test_gradients_of_other_shapes_and_dtypes_are_refused() -> None:
    parameter = Parameter(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"of shape \(3,\) for a parameter of shape \(2, 3\)"):
        parameter.accumulate(np.zeros(3, np.float32))
    for _ in range(2):  # the first gradient and a later one
        with pytest.raises(TypeError, match="gradient is float64, the parameter float32"):
            parameter.accumulate(np.zeros((2, 3)))
        parameter.accumulate(np.ones((2, 3), np.float32))
    assert parameter.contributions == 2
    assert parameter.grad is not None
    assert (parameter.grad == 2).all()


def test_a_gradient_is_copied_and_stays_in_one_buffer() -> None:
    parameter = Parameter(np.zeros(3, np.float32))
    given = np.ones(3, np.float32)
    parameter.accumulate(given)
    buffer = parameter.grad
    given[...] = 7
    assert (parameter.grad == 1).all()
    parameter.zero_grad()
    assert parameter.grad is None
    parameter.accumulate(given)
    assert parameter.grad is buffer
    assert parameter.contributions == 1


# --- several calls as one -----------------------------------------------------------------


def test_a_batch_that_the_loss_refuses_leaves_no_trace(xb_device: Device) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2), rng=0)
    x = batch(4, 3)
    with pytest.raises(ValueError, match=r"^MSELoss expects"), as_one_call(x):
        nn.MSELoss().forward(model.forward(x)[0], batch(4, 5))
    assert counter(model[0]) == 0
    with as_one_call(x):
        model.forward(x)
        assert counter(model[0]) == 0  # not before the end
        model.forward(x)
    assert counter(model[0]) == 2
    model.forward(x)
    assert counter(model[0]) == 3


def test_several_calls_as_one_give_the_same_bits_and_leave_the_frame_clean(
    xb_device: Device,
) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Recompute(nn.Dropout(0.5)), nn.Linear(3, 2), rng=0)
    state, x = model.extra_state(), batch(4, 3)

    def run() -> list[bytes]:
        grads = []
        for _ in range(2):
            output, saved = model.forward(x)
            grads.append(host(model.backward(output, saved)).tobytes())
        return grads

    expected = run()
    model.load_extra_state(state)
    with xb.use_device("cpu"), as_one_call(x), as_one_call(x):
        assert run() == expected
    assert counter(model[0]) == 2
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):  # warnings are on again
        np.log(np.zeros(1))
    with pytest.raises(ValueError, match=r"^Linear \(Sequential\.2\) expects"):
        model.forward(batch(4, 5))
    assert counter(model[0]) == 2
