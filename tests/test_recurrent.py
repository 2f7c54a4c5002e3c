"""Recurrent layers beside loops over single sequences; states, packed sequences, what crosses."""

import itertools
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.nn.utils import rnn
from xbackprop.testing import check_layer
from xbackprop.testing.structures import leaves, moved, random_like

LENGTHS = [2, 5, 3]
KINDS = {
    "RNN": {},
    "RNN-relu": {"nonlinearity": "relu"},
    "GRU": {},
    "LSTM": {},
    "LSTM-proj": {"proj_size": 2},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, *sizes: int, **options: Any) -> Any:
    options = KINDS[kind] | {"rng": 0, "dtype": "float64"} | options
    return getattr(nn, kind.partition("-")[0])(*(sizes or (3, 4)), **options)


def host(value: Any) -> list[np.ndarray]:
    return [xb.to_host(leaf) for _, leaf in leaves(value, "") if leaf is not None]


def equal(received: Any, expected: Any) -> None:
    for one, other in zip(host(received), host(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def states_for(layer: Any, batch: int, rng: np.random.Generator) -> Any:
    walks = layer.num_layers * layer.directions
    widths = [layer.output_size, layer.hidden_size][: len(layer.state_names)]
    return layer.nested([rng.normal(size=(walks, batch, width)) for width in widths])


# --- loops over single sequences, from the formulas of the classes ------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def step(kind: str, w: dict[str, np.ndarray], x: np.ndarray, h: Any, c: Any) -> Any:
    """One step of one sequence: the new h and c."""
    u, v = w["weight_ih"] @ x + w["bias_ih"], w["weight_hh"] @ h + w["bias_hh"]
    if kind == "RNN":
        return np.tanh(u + v), None
    if kind == "RNN-relu":
        return np.maximum(u + v, 0), None
    if kind == "GRU":
        (ur, uz, un), (vr, vz, vn) = np.split(u, 3), np.split(v, 3)
        r, z = sigmoid(ur + vr), sigmoid(uz + vz)
        return (1 - z) * np.tanh(un + r * vn) + z * h, None
    i, f, g, o = np.split(u + v, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (w["weight_hr"] @ h if "weight_hr" in w else h), c


def textbook(kind: str, layer: Any, x: np.ndarray, states: list[np.ndarray]) -> Any:
    """Output and last states of one sequence (time, features)."""
    parameters, ends = layer.state_dict(), []
    for number in range(layer.num_layers * layer.directions):
        level, direction = divmod(number, layer.directions)
        suffix = f"_l{level}" + "_reverse" * direction
        w = {
            name.removesuffix(suffix): values
            for name, values in parameters.items()
            if name.partition("_l")[2] == suffix[2:]
        }
        if direction == 0:
            below, x = x, np.empty((len(x), 0))
        h, *rest = (state[number] for state in states)
        c = rest[0] if rest else None
        outputs = []
        for row in below[::-1] if direction else below:
            h, c = step(kind, w, row, h, c)
            outputs.append(h)
        x = np.concatenate([x, outputs[::-1] if direction else outputs], axis=1)
        ends.append([h, c][: len(states)])
    return x, [np.stack(parts) for parts in zip(*ends, strict=True)]


@every_kind
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
def test_layers_do_what_loops_over_single_sequences_do(
    kind: str, num_layers: int, bidirectional: bool, xb_device: Device
) -> None:
    rng = np.random.default_rng(0)
    layer = make(kind, num_layers=num_layers, bidirectional=bidirectional, batch_first=True)
    x, states = rng.normal(size=(3, 5, 3)), states_for(layer, 3, rng)
    expected = [
        textbook(kind, layer, x[n, :length], [s[:, n] for s in layer.flat(states)])
        for n, length in enumerate(LENGTHS)
    ]
    x, states = moved(x, xb_device), moved(states, xb_device)
    packed = rnn.pack_padded_sequence(x, LENGTHS, True, enforce_sorted=False)
    packed_output, ends = layer(packed, states)
    for n, (output, last) in enumerate(expected):
        own = layer.nested([state[:, n] for state in layer.flat(states)])
        single, single_ends = layer(x[n, : LENGTHS[n]], own)
        in_batch = layer(x, states)[0]
        np.testing.assert_allclose(xb.to_host(single), output, atol=1e-14)
        received = xb.to_host(rnn.unpack_sequence(packed_output)[n])
        np.testing.assert_allclose(received, output, atol=1e-14)
        if LENGTHS[n] == 5:
            np.testing.assert_allclose(xb.to_host(in_batch[n]), output, atol=1e-14)
        for one, both, end in zip(layer.flat(single_ends), layer.flat(ends), last, strict=True):
            np.testing.assert_allclose(xb.to_host(one), end, atol=1e-14)
            np.testing.assert_allclose(xb.to_host(both[:, n]), end, atol=1e-14)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_cells_step_as_layers_do(kind: str, xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    layer, cell = make(kind), getattr(nn, f"{kind}Cell")(3, 4, dtype="float64", rng=1)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = moved(rng.normal(size=(5, 2, 3)), xb_device)
    output, ends = layer(x)
    state = None
    for time in range(5):
        state = cell(x[time], state)
        np.testing.assert_allclose(
            xb.to_host(cell.flat(state)[0]), xb.to_host(output[time]), atol=1e-14
        )
    for received, expected in zip(cell.flat(state), layer.flat(ends), strict=True):
        np.testing.assert_allclose(xb.to_host(received), xb.to_host(expected)[0], atol=1e-14)


# --- the protocol, of nested and of packed input ------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"bidirectional": True}),
        ("LSTM-proj", {"num_layers": 2, "dropout": 0.5}),
        ("GRU", {}),
    ],
)
@pytest.mark.parametrize("form", ["padded", "packed", "in any order"])
def test_protocol_of_nested_and_packed_input(
    kind: str, options: Any, form: str, xb_device: Device
) -> None:
    def layer() -> Any:
        return make(kind, 2, 3, **options, dtype="float32")

    def inputs(rng: np.random.Generator) -> Any:
        x, states = rng.normal(size=(5, 3, 2)), states_for(layer(), 3, rng)
        if form == "padded":
            return x, states
        lengths = [5, 3, 3] if form == "packed" else LENGTHS
        return rnn.pack_padded_sequence(x, lengths, enforce_sorted=form == "packed"), states

    check_layer(layer, inputs, devices=[xb_device], has_batch=False)


def test_protocol_of_packed_input_alone(xb_device: Device) -> None:
    check_layer(
        lambda: nn.GRU(3, 4, rng=0),
        lambda rng: rnn.pack_padded_sequence(rng.normal(size=(5, 3, 3)), [5, 2, 1]),
        devices=[xb_device],
        has_batch=False,
    )


def test_gradient_of_packed_input_is_packed_as_it_was(xb_device: Device) -> None:
    x = moved(np.random.default_rng(0).normal(size=(5, 3, 3)), xb_device)
    packed = rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    layer = make("LSTM")
    (output, _), saved = layer.forward(packed)
    grad = layer.backward((output, None), saved)
    for result in (output, grad):
        assert type(result) is rnn.PackedSequence
        assert result.batch_sizes == packed.batch_sizes == (3, 3, 2, 1, 1)
        equal(result[2:], packed[2:])
    assert grad.data.shape == packed.data.shape


@every_kind
def test_an_unused_output_is_a_gradient_of_zeros(kind: str, xb_device: Device) -> None:
    layer = make(kind, num_layers=2, bidirectional=True)
    rng = np.random.default_rng(0)
    x, hx = moved((rng.normal(size=(5, 3, 3)), states_for(layer, 3, rng)), xb_device)
    (output, ends), saved = layer.forward(x, hx)
    grad = moved(random_like((output, layer.flat(ends)), rng), xb_device)
    for used in itertools.product((False, True), repeat=1 + len(grad[1])):
        given = [g if use else None for g, use in zip((grad[0], *grad[1]), used, strict=True)]
        zeros = [g if use else g * 0 for g, use in zip((grad[0], *grad[1]), used, strict=True)]
        results = []
        for first, *rest in (given, zeros):
            layer.zero_grad()
            nested = None if not any(used[1:]) and first is not zeros[0] else layer.nested(rest)
            result = layer.backward((first, nested), saved, keep=True)
            results.append(host([result, [p.grad for p in layer.parameters()]]))
        equal(*results)


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_an_unused_state_of_a_cell(kind: str, xb_device: Device) -> None:
    cell = getattr(nn, kind)(3, 4, rng=0)
    x = xb.asarray(np.ones((2, 3), np.float32))
    _, saved = cell.forward(x)
    grads = [xb.asarray(np.ones((2, 4), np.float32)) for _ in cell.state_names]
    for unused in range(len(grads)):
        given = [None if n == unused else g for n, g in enumerate(grads)]
        zeros = [g * 0 if n == unused else g for n, g in enumerate(grads)]
        equal(
            cell.backward(cell.nested(given), saved, keep=True),
            cell.backward(cell.nested(zeros), saved, keep=True),
        )


def test_state_keys_are_in_pytorchs_order() -> None:
    layer = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    suffixes = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert list(layer.state_dict()) == [p + s for s in suffixes for p in parts]
    assert layer.weight_ih_l1.shape == (16, 4)
    assert nn.LSTM(3, 4, 2, bias=False).state_dict().keys() == {
        "weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1",
    }  # fmt: skip


def test_initial_values_are_uniform_within_the_root_of_the_hidden_size() -> None:
    for layer in (nn.LSTM(30, 25, 2, rng=0), nn.GRUCell(30, 25, rng=0)):
        for parameter in layer.parameters():
            values = xb.to_host(parameter.data)
            assert 0.17 < np.abs(values).max() <= 0.2
            assert abs(values.mean()) < 0.04
    first = nn.GRU(3, 4, 2, dropout=0.5, rng=3)
    again = nn.GRU(3, 4, 2, dropout=0.5, rng=4)
    again.reset_parameters(3)
    assert first.state_dict().keys() == again.state_dict().keys()
    equal(first.state_dict(), again.state_dict())
    equal(first.extra_state(), again.extra_state())


# --- dropout ------------------------------------------------------------------------------


def test_dropout_acts_between_layers_in_training_only(xb_device: Device) -> None:
    x = xb.asarray(np.random.default_rng(0).normal(size=(6, 3, 3)), dtype=np.float32)
    plain = nn.GRU(3, 4, 2, rng=0)
    layer = nn.GRU(3, 4, 2, dropout=0.5, rng=1)
    layer.load_state_dict(plain.state_dict())
    equal(layer.eval()(x), plain(x))
    first, second = layer.train()(x), layer(x)
    assert not np.array_equal(*(xb.to_host(y[0]) for y in (first, second)))
    equal(first[1][0], plain(x)[1][0])  # the first layer sees none
    for name, value in layer.extra_state().items():
        assert name == "between.random_state"
        assert value[2] == 2


def test_dropout_of_everything_leaves_the_second_layer_its_biases() -> None:
    layer = nn.RNN(3, 4, 2, dropout=1.0, rng=0).to("cpu")
    outputs = [layer(np.random.default_rng(n).normal(size=(1, 2, 3)).astype("f")) for n in (0, 1)]
    equal(outputs[0][0], outputs[1][0])


# --- what crosses between host and device -------------------------------------------------


@every_kind
@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
def test_a_step_stays_on_the_device_packed_too(kind: str, xb_device: Device) -> None:
    layer = make(kind, num_layers=2, bidirectional=True, dropout=0.5)
    rng = np.random.default_rng(0)
    x, hx = moved((rng.normal(size=(5, 3, 3)), states_for(layer, 3, rng)), xb_device)
    for lengths, is_sorted in (([5, 4, 4], True), (LENGTHS, False)):
        with xb.transfer_log() as log:
            packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=is_sorted)
        # The order of the sequences goes up with the batch, once.
        assert (log.uploads, log.downloads, log.synchronizations) == (1 - is_sorted, 0, 0)
        with xb.transfer_log() as log:
            for given in (packed, x):
                (output, ends), saved = layer.forward(given, hx)
                layer.backward((output, ends), saved)
            padded, found = rnn.pad_packed_sequence(layer(packed)[0])
            rnn.unpad_sequence(padded, found)
            rnn.pack_sequence([x[:3, 0], x[:2, 1]])
        assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
        assert found.tolist() == lengths
        assert type(found) is np.ndarray


# --- packing ------------------------------------------------------------------------------


def test_where_every_element_goes(xb_device: Device) -> None:
    x = xb.asarray([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.int64)  # (time, batch)
    packed = rnn.pack_padded_sequence(x, [3, 2, 1])
    assert xb.to_host(packed.data).tolist() == [1, 2, 3, 4, 5, 7]
    assert packed.batch_sizes == (3, 2, 1)
    assert packed[2:] == (None, None)
    packed = rnn.pack_padded_sequence(x, [1, 3, 1], enforce_sorted=False)
    assert xb.to_host(packed.data).tolist() == [2, 1, 3, 5, 8]
    assert packed.batch_sizes == (3, 1, 1)
    assert [xb.to_host(a).tolist() for a in packed[2:]] == [[1, 0, 2], [1, 0, 2]]
    padded, lengths = rnn.pad_packed_sequence(packed, True, -1, 4)
    assert xb.to_host(padded).tolist() == [[1, -1, -1, -1], [2, 5, 8, -1], [3, -1, -1, -1]]
    assert lengths.tolist() == [1, 3, 1]
    left = rnn.pad_sequence([x[0], x[1, :1]], True, 0, "left")
    assert xb.to_host(left).tolist() == [[1, 2, 3], [0, 0, 4]]
    parts = rnn.unpad_sequence(x, [3, 0, 1])
    assert [xb.to_host(part).tolist() for part in parts] == [[1, 4, 7], [], [3]]


def test_packed_sequences_made_by_hand_and_moved(xb_device: Device) -> None:
    order = xb.asarray([1, 2, 0])
    data = xb.asarray(np.arange(6.0))
    packed = rnn.PackedSequence(data, np.array([3, 2, 1]), order)
    assert packed.batch_sizes == (3, 2, 1)
    assert xb.to_host(packed.unsorted_indices).tolist() == [2, 0, 1]
    assert rnn.pad_packed_sequence(packed)[1].tolist() == [1, 3, 2]  # by a download
    moved_one = packed.to("cpu", np.float64)
    assert type(moved_one.data) is type(moved_one.sorted_indices) is np.ndarray
    assert moved_one.data.dtype == np.float64
    assert rnn.pad_packed_sequence(moved_one)[1].tolist() == [1, 3, 2]
    assert rnn.invert_permutation(None) is None


PACKING = [
    lambda u, a: u.pack_padded_sequence(a, [4, 3, 1]),
    lambda u, a: u.pack_padded_sequence(a, [2, 1, 1]),
    lambda u, a: u.pack_padded_sequence(a, [2, 4, 1], enforce_sorted=False),
    lambda u, a: u.pack_padded_sequence(a, [4, 4, 2, 1], True),
    lambda u, a: u.pack_padded_sequence(a, [1, 3, 2, 4], batch_first=True, enforce_sorted=False),
    lambda u, a: u.pad_packed_sequence(u.pack_padded_sequence(a, [4, 3, 1])),
    lambda u, a: u.pad_packed_sequence(u.pack_padded_sequence(a, [2, 1, 1]), True, 7.5),
    lambda u, a: u.pad_packed_sequence(
        u.pack_padded_sequence(a, [2, 4, 1], enforce_sorted=False), total_length=6),
    lambda u, a: u.pad_sequence([a[:2, 0], a[:, 1], a[:0, 2]]),
    lambda u, a: u.pad_sequence([a[:2, 0], a[:, 1]], True, -1.0),
    lambda u, a: u.pad_sequence([a[:2, 0], a[:, 1]], True, 2.0, "left"),
    lambda u, a: u.pad_sequence([a[:2, 0], a[:, 1]], False, 2.0, "left"),
    lambda u, a: u.pad_sequence(a, True),
    lambda u, a: u.pad_sequence([a[:2, 0, 0], a[:, 1, 0]]),
    lambda u, a: u.pack_sequence([a[:, 0], a[:2, 1]]),
    lambda u, a: u.pack_sequence([a[:2, 0], a[:, 1], a[:3, 2]], enforce_sorted=False),
    lambda u, a: tuple(u.unpack_sequence(u.pack_sequence([a[:, 0], a[:2, 1]]))),
    lambda u, a: tuple(
        u.unpack_sequence(u.pack_sequence([a[:2, 0], a[:, 1]], enforce_sorted=False))),
]  # fmt: skip


@pytest.mark.torch_parity
@pytest.mark.parametrize("number", range(len(PACKING)))
def test_packing_gives_what_pytorch_gives(number: int) -> None:
    torch = import_torch()
    x = np.random.default_rng(0).normal(size=(4, 3, 2)) if number not in (3, 4) else (
        np.random.default_rng(0).normal(size=(4, 4, 2))
    )  # fmt: skip
    ours = PACKING[number](rnn, x)
    theirs = PACKING[number](torch.nn.utils.rnn, torch.tensor(x))
    ours, theirs = ((v if isinstance(v, tuple) else (v,)) for v in (ours, theirs))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if other is None:
            assert one is None
        else:
            np.testing.assert_array_equal(np.array(one), other.numpy(), strict=True)


# --- every combination of options beside PyTorch ------------------------------------------

FORMS = {"batch": None, "one sequence": None, "packed": [5, 3, 3, 1], "in any order": [3, 1, 5, 3]}


@pytest.mark.torch_parity("RNN", "GRU", "LSTM")
@every_kind
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_combination_of_options(
    kind: str, form: str, bidirectional: bool, num_layers: int
) -> None:
    torch = import_torch()
    with xb.use_device("cpu"):
        for batch_first, bias, has_states in itertools.product((False, True), repeat=3):
            options = KINDS[kind] | {
                "num_layers": num_layers, "bidirectional": bidirectional,
                "batch_first": batch_first, "bias": bias,
            }  # fmt: skip
            compare_with_pytorch(torch, kind.partition("-")[0], options, form, has_states)


def compare_with_pytorch(
    torch: Any, kind: str, options: dict[str, Any], form: str, has_states: bool
) -> None:
    """Output, last states and all gradients of one call."""
    layer = getattr(nn, kind)(3, 4, **options, dtype="float64")
    module = getattr(torch.nn, kind)(3, 4, **options).double()
    layer.load_state_dict(module.state_dict())
    rng, is_single, lengths = np.random.default_rng(0), form == "one sequence", FORMS[form]
    first = options["batch_first"]
    x = rng.normal(size=(5, 3) if is_single else (4, 5, 3) if first else (5, 4, 3))
    states = [s[:, 0] if is_single else s for s in layer.flat(states_for(layer, 4, rng))]
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, *states)]
    given, torch_given, packing = x, tensors[0], torch.nn.utils.rnn
    if lengths:
        is_sorted = form == "packed"
        given = rnn.pack_padded_sequence(given, lengths, first, is_sorted)
        torch_given = packing.pack_padded_sequence(torch_given, lengths, first, is_sorted)
    hx = (layer.nested(states), layer.nested(tensors[1:])) if has_states else (None, None)
    (output, ends), saved = layer.forward(given, hx[0])
    expected, torch_ends = module(torch_given, hx[1])
    grad = random_like(output, rng)
    if lengths:
        expected = expected.data  # of one order, since lengths that are equal are few
    grads = [grad.data if lengths else grad, *(random_like(s, rng) for s in layer.flat(ends))]
    wanted = [expected, *layer.flat(torch_ends)]
    torch.autograd.backward(wanted, [torch.tensor(g) for g in grads])
    result = layer.backward((grad, layer.nested(grads[1:])), saved)
    grad_x, grad_states = result if has_states else (result, None)
    if lengths:
        grad_x = rnn.pad_packed_sequence(grad_x, first, total_length=5)[0]
    received = [output.data if lengths else output, *layer.flat(ends), grad_x]
    received += layer.flat(grad_states) if has_states else []
    wanted += [t.grad for t in tensors[: None if has_states else 1]]
    received += [p.grad for p in layer.parameters()]
    wanted += [p.grad for p in module.parameters()]
    for one, other in zip(received, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(one), other.detach().numpy(), rtol=0, atol=1e-12)


# --- numbers ------------------------------------------------------------------------------


@every_kind
def test_saturated_gates_stay_finite(kind: str) -> None:
    layer = make(kind, dtype="float32").to("cpu")
    x = np.random.default_rng(0).normal(size=(6, 3, 3)).astype("f")
    for scale in (1e2, 1e4):
        (output, ends), saved = layer.forward(x * scale)
        grads = layer.backward((np.ones_like(output), None), saved)
        assert all(np.isfinite(array).all() for array in host([output, ends, grads]))


@pytest.mark.torch_parity("RNN", "GRU", "LSTM")
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_activations_give_what_pytorch_gives(kind: str, dtype: str) -> None:
    torch = import_torch()
    layer = make(kind, dtype=dtype).to("cpu")
    theirs = getattr(torch.nn, kind.partition("-")[0])(3, 4, **KINDS[kind])
    theirs = theirs.to(getattr(torch, dtype))
    layer.load_state_dict(theirs.state_dict())
    x = (20 * np.random.default_rng(0).normal(size=(30, 3, 3))).astype(dtype)
    (output, _), saved = layer.forward(x)
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor)[0]
    expected.backward(torch.ones_like(expected))
    grad = layer.backward((np.ones_like(output), None), saved)
    scale = max(1, np.abs(output).max())
    tolerance = scale * (1e-5 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(output, expected.detach().numpy(), atol=tolerance)
    np.testing.assert_allclose(grad, tensor.grad.numpy(), atol=tolerance)


# --- errors -------------------------------------------------------------------------------


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return xb.asarray(np.zeros(shape), dtype=dtype)


def test_refused_packing(xb_device: Device) -> None:
    x = zeros(3, 2, 1)
    pack, pad, unpad = rnn.pack_padded_sequence, rnn.pad_packed_sequence, rnn.unpad_sequence
    packed = pack(x, [2, 1])
    for call, error, message in (
        (lambda: pack(x, [1, 2]), ValueError, r"do not rise; got \[1, 2\]\. Sort the"),
        (lambda: pack(x, [3, 0]), ValueError, r"lengths from 1 to 3; got \[3, 0\]"),
        (lambda: pack(x, [4, 1]), ValueError, r"lengths from 1 to 3; got \[4, 1\]"),
        (lambda: pack(x, [2]), ValueError, "one length for each of 2 sequences.* got 1"),
        (lambda: pack(zeros(3, 0, 1), []), ValueError, "each of 0 sequences, and at least one"),
        (lambda: pack(x, [2.0, 1.0]), TypeError, "lengths to be a sequence of integers; got flo"),
        (lambda: pack(x, 2), TypeError, r"lengths to be a sequence of integers; got int64 of sh"),
        (lambda: pack([[1.0]], [1]), TypeError, "input to be an array; got list"),
        (lambda: pack(zeros(3), [1]), ValueError, r"input of 2 axes or more; got shape \(3,\)"),
        (lambda: pad(packed, total_length=1), ValueError, "total_length of at least 2.* got 1"),
        (lambda: pad(x), TypeError, "pad_packed_sequence expects a PackedSequence; got"),
        (lambda: rnn.pad_sequence([]), ValueError, "at least one sequence; got none"),
        (lambda: rnn.pad_sequence([x, zeros(2, 3)]), ValueError, "differ in their length only"),
        (lambda: rnn.pad_sequence([x, zeros(2, 2, 1, dtype=np.float64)]), TypeError, "one dtype"),
        (lambda: rnn.pad_sequence([x, 1.0]), TypeError, r"sequences\[1\] to be an array"),
        (lambda: rnn.pad_sequence([x], padding_side="up"), ValueError, "padding_side 'left' or"),
        (lambda: rnn.pack_sequence([x[:1], x]), ValueError, "do not rise"),
        (lambda: unpad(x, [4, 1]), ValueError, r"2 lengths from 0 to 3; got \[4, 1\]"),
        (lambda: unpad(x, [1]), ValueError, r"2 lengths from 0 to 3; got \[1\]"),
    ):
        with pytest.raises(error, match=message):
            call()
    if xb_device.kind != "cpu":
        for call in (
            lambda: pack(x, xb.asarray([2, 1])),
            lambda: unpad(x, xb.asarray([2, 1])),
            lambda: rnn.PackedSequence(x, xb.asarray([2, 1])),
        ):
            with pytest.raises(TypeError, match="on the host; got an array on fake"):
                call()


def test_refused_calls(xb_device: Device) -> None:
    lstm, gru, cell = nn.LSTM(3, 4, 2), nn.GRU(3, 4), nn.LSTMCell(3, 4)
    x, h = zeros(5, 2, 3), zeros(2, 2, 4)
    made = rnn.PackedSequence
    for call, error, message in (
        (lambda: lstm(x, h), TypeError, r"LSTM expects hx to be a pair \(h_0, c_0\); got"),
        (lambda: lstm(x, (h,)), TypeError, r"LSTM expects hx to be a pair"),
        (lambda: lstm(x, (h, h[:1])), ValueError, r"c_0 of shape \(2, 2, 4\); got \(1, 2, 4\)"),
        (lambda: lstm(x, (h, None)), TypeError, "LSTM expects c_0 to be an array; got NoneType"),
        (lambda: lstm(x[:, 0], (h, h)), ValueError, r"h_0 of shape \(2, 4\); got \(2, 2, 4\)"),
        (lambda: gru(x, zeros(1, 2, 4, dtype=np.float64)), TypeError, "h_0 of dtype float32; got"),
        (lambda: gru(x, (h,)), TypeError, "GRU expects h_0 to be an array; got tuple"),
        (lambda: cell(x[0], h[0]), TypeError, "LSTMCell expects hx to be a pair"),
        (lambda: gru(made(zeros(3, 2), [2, 1])), ValueError, r"x.data of shape \(rows, 3\); got"),
        (lambda: gru(made(zeros(4, 3), [2, 1])), ValueError, "x.data of 3 rows.* got 4"),
        (lambda: gru(made(zeros(3, 3), [1, 2])), ValueError, r"none larger .* got \(1, 2\)"),
        (lambda: gru(made(zeros(0, 3), [])), ValueError, "x.batch_sizes of positive numbers"),
        (lambda: gru(made(zeros(3, 3, dtype=np.float64), [2, 1])), TypeError, "x.data of dtype fl"),
        (lambda: gru(made([1.0], [1])), TypeError, "x.data to be an array; got list"),
        (lambda: gru.backward(x, gru.forward(x)[1]), TypeError,
         r"GRU.backward expects the pair \(grad_output, grad_h_n\), None for what was not used"),
        (lambda: lstm.backward(x, lstm.forward(x)[1]), TypeError,
         r"LSTM.backward expects the pair \(grad_output, \(grad_h_n, grad_c_n\)\)"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()
    if xb_device.kind != "cpu":
        with pytest.raises(ValueError, match="GRU: h_0 is on cpu"):
            gru(x, np.zeros((1, 2, 4), np.float32))
