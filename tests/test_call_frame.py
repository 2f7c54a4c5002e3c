"""The protocol all layers share: the call frame, parameters, state, configs, kernels."""

import copy
import pickle
import threading

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.fake import memory_of
from xbackprop.dispatch import observe, op


def network(rng=0, dtype=np.float64):
    return nn.Sequential(
        nn.Linear(3, 4, dtype=dtype), nn.Tanh(), nn.Linear(4, 2, dtype=dtype), rng=rng
    )


def batch(rows=5, seed=0, columns=3, dtype=np.float64):
    return xb.asarray(np.random.default_rng(seed).normal(size=(rows, columns)), dtype=dtype)


def gradients(model):
    return {name: xb.to_host(p.grad).copy() for name, p in model.named_parameters()}


def run(model, x, keep=None):
    output, saved = model.forward(x)
    model.backward(output, saved, keep=keep)


# --- saved --------------------------------------------------------------------------------


def test_saved_is_consumed_once_and_kept_on_request(xb_device):
    model, x = network(), batch()
    output, saved = model.forward(x)
    model.backward(output, saved, keep=True)
    once = gradients(model)
    model.backward(output, saved)
    for name, grad in gradients(model).items():
        np.testing.assert_array_equal(grad, 2 * once[name])
    with pytest.raises(RuntimeError, match=r"already used by a backward.*keep=True"):
        model.backward(output, saved)


def test_backward_without_saved_says_what_to_call(xb_device):
    layer = nn.Linear(3, 2)
    output = layer(batch(dtype=np.float32))
    with pytest.raises(RuntimeError, match=r"layer.forward\(x\)`, not `layer\(x\)"):
        layer.backward(output)
    with pytest.raises(TypeError, match=r"expects the `saved` of Linear.forward; got tuple"):
        layer.backward(output, (1, 2))


@pytest.mark.parametrize("change", ["step", "load_state_dict", "to", "assign"])
def test_backward_after_a_parameter_changed_raises(xb_device, change):
    model, x = network(), batch()
    run(model, x)
    output, saved = model.forward(x)
    if change == "step":
        xb.optim.SGD(model.parameters(), lr=0.1).step()
    elif change == "load_state_dict":
        model.load_state_dict(model.state_dict())
    elif change == "to":
        model.to(dtype=np.float32)
    else:
        model[2].bias.data = model[2].bias.data + 1
    with pytest.raises(RuntimeError, match="changed since the forward"):
        model.backward(output, saved)


def test_another_models_step_is_no_reason_to_refuse(xb_device):
    model, other, x = network(), network(1), batch()
    run(other, x)
    output, saved = model.forward(x)
    xb.optim.SGD(other.parameters(), lr=0.1).step()
    model.backward(output, saved)


def test_two_interleaved_forwards_are_exact(xb_device):
    model, first, second = network(), batch(seed=1), batch(seed=2)
    run(model, first)
    run(model, second)
    expected = gradients(model)
    model.zero_grad()
    out1, saved1 = model.forward(first)
    out2, saved2 = model.forward(second)
    model.backward(out1, saved1)
    model.backward(out2, saved2)
    for name, grad in gradients(model).items():
        np.testing.assert_array_equal(grad, expected[name])


def test_a_network_holds_no_activation_after_a_step(xb_device):
    if xb_device.kind != "fake":
        pytest.skip("the stand-in counts memory")
    model, x = network(), batch(1000)
    run(model, x)
    used = memory_of(xb_device.index).used
    run(model, x)
    assert memory_of(xb_device.index).used == used


def test_inference_holds_one_activation_at_a_time(xb_device):
    if xb_device.kind != "fake":
        pytest.skip("the stand-in counts memory")
    layers = [nn.ReLU() for _ in range(30)]
    model, x = nn.Sequential(*layers), batch(1000)
    book = memory_of(xb_device.index)
    before = book.used
    book.reset_peak()
    model(x)
    assert book.peak - before <= 3 * x.nbytes
    book.reset_peak()
    output, saved = model.forward(x)
    assert book.peak - before >= 30 * x.nbytes
    del output, saved
    assert book.used == before


# --- parameters ---------------------------------------------------------------------------


def test_tied_weight_and_layer_used_twice_get_the_sum(xb_device):
    x = batch(columns=3)
    tied = nn.Sequential(
        nn.Linear(3, 3, dtype=np.float64), nn.Tanh(), nn.Linear(3, 3, dtype=np.float64), rng=0
    )
    tied[2].weight, tied[2].bias = tied[0].weight, tied[0].bias
    layer = tied[0]
    twice = nn.Sequential(layer, nn.Tanh(), layer)
    xb.testing.check_gradients(twice, x, rng=0)
    twice.zero_grad()
    run(twice, x)
    expected = xb.to_host(layer.weight.grad).copy()
    assert layer.weight.contributions == 2
    tied.zero_grad()
    run(tied, x)
    np.testing.assert_array_equal(xb.to_host(layer.weight.grad), expected)
    assert len(list(tied.parameters())) == 2
    assert set(tied.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_accumulate_refuses_a_broadcast_and_another_dtype(xb_device):
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"gradient of shape \(1, 3\).*\(2, 3\)"):
        layer.weight.accumulate(batch(1, dtype=np.float32))
    with pytest.raises(TypeError, match="float64"):
        layer.weight.accumulate(batch(2))
    assert layer.weight.grad is None


def test_frozen_parameters_get_no_gradient(xb_device):
    model, x = network(), batch()
    model[0].requires_grad_(False)
    run(model, x)
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None


# --- state updates ------------------------------------------------------------------------


class Refuses(nn.Module):
    def forward(self, x):
        raise ValueError("refused")

    def backward(self, grad_output, saved):
        return grad_output


def test_a_refused_batch_changes_nothing(xb_device):
    dropout = nn.Dropout(0.5, rng=0)
    model = nn.Sequential(dropout, Refuses())
    before = dropout.extra_state()
    with pytest.raises(ValueError, match="refused"):
        model.forward(batch())
    np.testing.assert_array_equal(dropout.extra_state()["random_state"], before["random_state"])
    nn.Sequential(dropout).forward(batch())
    assert dropout.extra_state()["random_state"][2] == before["random_state"][2] + 1


def test_dropout_twice_in_one_call_draws_two_masks(xb_device):
    dropout = nn.Dropout(0.5, rng=0)
    model = nn.Sequential(dropout, nn.Identity(), dropout)
    ones = xb.asarray(np.ones((1, 4000)))
    share = xb.to_host(model.forward(ones)[0]).astype(bool).mean()
    assert abs(share - 0.25) < 0.04
    assert dropout.extra_state()["random_state"][2] == 2


def test_recompute_sees_the_first_runs_masks(xb_device):
    plain = nn.Sequential(nn.Linear(3, 8, dtype=np.float64), nn.Dropout(0.5), rng=3)
    again = nn.Recompute(copy.deepcopy(plain))
    x = batch()
    for model in (plain, again):
        run(model, x)
        run(model, x)
    expected = gradients(plain)
    for name, grad in gradients(again).items():
        np.testing.assert_array_equal(grad, expected[name.removeprefix("module.")])
    np.testing.assert_array_equal(
        plain.extra_state()["1.random_state"], again.extra_state()["module.1.random_state"]
    )


def test_inference_in_threads_agrees(xb_device):
    model, x = network().eval(), batch()
    expected = xb.to_host(model(x))
    failures = []

    def work():
        with xb.use_device(xb_device):
            for _ in range(50):
                if not np.array_equal(xb.to_host(model(x)), expected):
                    failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- errors -------------------------------------------------------------------------------


def test_shape_error_names_layer_path_expected_received_and_hint(xb_device):
    model = nn.Sequential(nn.Linear(784, 4), nn.ReLU())
    message = (
        r"Linear \(Sequential\.0\) expects x of shape \(\.\.\., 784\); got \(2, 28, 28\)\. "
        r"Add Flatten before it"
    )
    with pytest.raises(ValueError, match=message):
        model(xb.asarray(np.zeros((2, 28, 28))))


def test_dtype_error_names_astype(xb_device):
    with pytest.raises(TypeError, match=r"Linear expects x of dtype float32; got float64.*astype"):
        nn.Linear(3, 2)(batch())


def test_lists_are_told_how_to_become_arrays(xb_device):
    with pytest.raises(TypeError, match=r"Linear expects x to be an array; got list.*asarray"):
        nn.Linear(3, 2)([[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
def test_mixed_devices_name_layer_argument_devices_and_call(xb_device):
    layer, loss = nn.Linear(3, 2), nn.MSELoss()
    host = np.zeros((4, 3), np.float32)
    name = str(xb_device)
    with pytest.raises(ValueError, match=rf"Linear: x is on cpu.*{name}.*to_device\(x, '{name}'\)"):
        layer(host)
    with pytest.raises(ValueError, match=rf"MSELoss: target is on cpu.*{name}"):
        loss(layer(xb.to_device(host)), np.zeros((4, 2), np.float32))
    other = "fake:0" if name == "fake:1" else "fake:1"
    with pytest.raises(ValueError, match=rf"x is on {other}"):
        layer(xb.to_device(host, other))


# --- state dict, config, copies -----------------------------------------------------------


def test_load_state_dict_names_every_problem_and_changes_nothing(xb_device):
    model = network()
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["0.bias"]
    state["extra"] = np.zeros(1)
    state["2.weight"] = np.zeros((9, 9))
    with pytest.raises(ValueError, match=r"missing: 0\.bias.*unexpected: extra.*2\.weight.*9, 9"):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_config_keeps_shared_layers_and_tied_parameters(xb_device):
    layer = nn.Linear(3, 3)
    other = nn.Linear(3, 3)
    other.weight = layer.weight
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Residual(other))
    rebuilt = nn.from_config(model.config())
    assert rebuilt.config() == model.config()
    assert rebuilt[0] is rebuilt[2]
    assert rebuilt[3].module.weight is rebuilt[0].weight
    assert rebuilt[3].module.bias is not rebuilt[0].bias


def test_from_config_makes_known_classes_only(xb_device):
    with pytest.raises(ValueError, match="unknown layer 'Refuses'"):
        nn.from_config(nn.Sequential(Refuses()).config())
    model = nn.from_config(nn.Sequential(Refuses()).config(), types=[Refuses])
    assert type(model[0]) is Refuses
    with pytest.raises(ValueError, match="no argument 'oops'"):
        nn.from_config({"type": "Linear", "args": {"oops": 1}})


def test_pickles_open_on_the_host_and_copies_stay(xb_device):
    model, x = network(), batch()
    expected = xb.to_host(model(x))
    copied = copy.deepcopy(model)
    assert copied.device == xb_device
    np.testing.assert_array_equal(xb.to_host(copied(x)), expected)
    loaded = pickle.loads(pickle.dumps(model))
    assert str(loaded.device) == "cpu"
    np.testing.assert_allclose(loaded(xb.to_host(x)), expected, rtol=1e-12)


# --- users' own modules -------------------------------------------------------------------


class Scale(nn.Module):
    """Knows nothing of ``input_grad``."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return x * self.factor, None

    def backward(self, grad_output, saved):
        return grad_output * self.factor


class Louder(Scale):
    def forward(self, x):
        output, saved = super().forward(x)
        return output + 1, saved

    def backward(self, grad_output, saved):
        return super().backward(grad_output, saved)


@pytest.mark.parametrize("layer", [Scale(2.0), Louder(3.0)], ids=["plain", "with-super"])
def test_a_users_layer_works_anywhere(xb_device, layer):
    model = nn.Sequential(layer, nn.Linear(3, 2, dtype=np.float64), layer, rng=0)
    xb.testing.check_gradients(model, batch(), rng=0)
    output, saved = model.forward(batch())
    assert model.backward(output, saved, input_grad=False) is None


# --- ops, kernels, observers --------------------------------------------------------------


def make_op():
    @op
    def triple(x):
        return x + x + x

    return triple


def test_the_stand_in_asks_the_cuda_kernel_and_runs_the_reference():
    triple, asked = make_op(), []

    @triple.kernel("cuda", when=lambda x: asked.append(x) or x.shape[0] < 4, launches=1)
    def triple_cuda(x):
        raise AssertionError("the stand-in runs the reference")

    with xb.use_device("fake"):
        for rows, launches in ((3, 1), (5, 2)):
            x = xb.asarray(np.ones(rows))
            with xb.transfer_log() as log:
                result = triple(x)
            assert log.launches == launches
            np.testing.assert_array_equal(xb.to_host(result), 3)
    assert [spec.shape for spec in asked] == [(3,), (5,)]
    assert triple.reference(np.ones(1))[0] == 3


def test_a_cpu_kernel_replaces_the_reference_on_the_cpu():
    triple = make_op()
    x = np.ones(2)
    assert triple(x)[0] == 3

    @triple.kernel("cpu", when=lambda x: x.dtype == np.float64)
    def triple_cpu(x):
        return 30 * x

    assert triple(x)[0] == 30
    assert triple(np.ones(2, np.float32))[0] == 3
    assert triple.reference(x)[0] == 3
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        triple.kernel("tpu")


def test_observers_see_every_call_with_its_depth(xb_device):
    triple = make_op()

    @op
    def outer(x):
        return triple(x)

    class Watcher:
        def __init__(self):
            self.calls = []

        def before(self, call):
            self.calls.append((call.op.name, call.depth, str(call.device)))

        def after(self, call, result):
            assert result is not None

    watcher = Watcher()
    with observe(watcher):
        outer(xb.asarray([1.0]))
    outer(xb.asarray([1.0]))
    assert watcher.calls == [("outer", 0, str(xb_device)), ("triple", 1, str(xb_device))]


def test_an_op_names_the_argument_on_another_device():
    @op
    def add(a, b):
        return a + b

    with xb.use_device("fake"):
        x = xb.asarray([1.0])
    with pytest.raises(ValueError, match=r"add: argument 1 is on fake:0, an earlier one on cpu"):
        add(np.ones(1), x)


def test_saved_of_an_op_is_named():
    from xbackprop.nn.linear import linear_forward

    _, saved = linear_forward(np.ones((1, 2)), np.ones((3, 2)), None)
    assert saved._fields == ("x", "weight")
    assert saved.x.shape == (1, 2)
