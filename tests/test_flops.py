"""What ops say of their floating-point operations equals formulas written down by hand."""

import layer_cases
import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.dispatch import OpCall, observe
from xbackprop.observe.profiling.work import count_flops
from xbackprop.testing.structures import backward_of_all_inputs, random_like


class Counted:
    """Operations by the names of the ops."""

    def __init__(self) -> None:
        self.by_op: dict[str, list[int | None]] = {}

    def before(self, call: OpCall) -> None:
        self.by_op.setdefault(call.op.name, []).append(count_flops(call))

    def after(self, call: OpCall, result: object) -> None:
        pass


def counted(layer: nn.Module, *inputs: np.ndarray, input_grad: bool = True) -> Counted:
    counts = Counted()
    with observe(counts):
        output, saved = layer.forward(*inputs)
        grad = output
        if isinstance(output, tuple):
            grad = (output[0], None)
        layer.backward(grad, saved, input_grad=input_grad)
    return counts


def ones(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("input_grad", [True, False])
def test_linear(input_grad):
    layer = nn.Linear(7, 5, device="cpu", rng=0)
    counts = counted(layer, ones(2, 3, 7), input_grad=input_grad).by_op
    # Each of the 6 x 5 outputs: 7 products, 6 sums, and the bias.
    assert counts["linear_forward"] == [6 * 5 * (7 + 6 + 1)]
    # dx: 6 x 7 elements, each a sum of 5 products. dW: 5 x 7 elements, each a sum of 6 products.
    grad_x = 6 * 7 * (5 + 5) if input_grad else 0
    assert counts["linear_backward"] == [grad_x + 5 * 7 * (6 + 6)]


def test_frozen_weights_are_not_counted():
    layer = nn.Linear(7, 5, device="cpu", rng=0)
    layer.weight.requires_grad = False
    counts = counted(layer, ones(6, 7)).by_op
    assert counts["linear_backward"] == [6 * 7 * (5 + 5)]


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 0, 1), (2, 1, 1), (1, 1, 2)])
def test_conv2d(stride, padding, groups):
    layer = nn.Conv2d(4, 6, (3, 2), stride=stride, padding=padding, groups=groups,
                      device="cpu", rng=0)  # fmt: skip
    x = ones(2, 4, 8, 9)
    counts = counted(layer, x).by_op
    height = (8 + 2 * padding - 3) // stride + 1
    width = (9 + 2 * padding - 2) // stride + 1
    # Every output element sees a kernel of 3 x 2 over the channels of its group.
    pairs = (2 * 6 * height * width) * (4 // groups * 3 * 2)
    assert counts["convolution_forward"] == [2 * pairs]
    # Each of those pairs of an input and a weight gives one product to dx and one to dw.
    assert counts["convolution_backward"] == [2 * 2 * pairs]


def test_conv_transpose2d():
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, device="cpu", rng=0)
    counts = counted(layer, ones(2, 4, 5, 5)).by_op
    pairs = (2 * 4 * 5 * 5) * (6 * 3 * 3)  # every input element meets a kernel of 6 channels
    assert counts["convolution_transpose_forward"] == [2 * pairs]
    assert counts["convolution_transpose_backward"] == [2 * 2 * pairs]


@pytest.mark.parametrize("proj", [0, 2])
def test_lstm(proj):
    time, batch, features, hidden = 4, 3, 5, 6
    layer = nn.LSTM(features, hidden, proj_size=proj, device="cpu", rng=0)
    counts = counted(layer, ones(time, batch, features)).by_op
    state = proj or hidden
    cells = time * batch
    gates = 4 * hidden
    forward = cells * gates * 2 * features + cells * gates * 2 * state + cells * proj * 2 * hidden
    assert counts["lstm_forward"] == [forward]
    # dx, dW_ih, dh, dW_hh and, with a projection, d(o tanh(c)) and dW_hr.
    grads = 2 * cells * gates * 2 * features + 2 * cells * gates * 2 * state
    assert counts["lstm_backward"] == [grads + 2 * cells * proj * 2 * hidden]


@pytest.mark.parametrize(("kind", "blocks"), [("GRU", 3), ("RNN", 1)])
def test_other_recurrent_layers(kind, blocks):
    layer = getattr(nn, kind)(5, 6, num_layers=2, bidirectional=True, device="cpu", rng=0)
    counts = counted(layer, ones(4, 3, 5), input_grad=False).by_op
    first = 12 * blocks * 6 * 2 * (5 + 6)
    second = 12 * blocks * 6 * 2 * (2 * 6 + 6)
    assert counts[f"{kind.lower()}_forward"] == [first, first, second, second]
    without_x = 12 * blocks * 6 * 2 * 5
    assert counts[f"{kind.lower()}_backward"] == [
        2 * second, 2 * second, 2 * first - without_x, 2 * first - without_x,
    ]  # fmt: skip


def attention_counts(forward, backward, q, k, v, **options):
    counts = Counted()
    with observe(counts):
        _, saved = forward(q, k, v, 0.5, **options)
        backward(np.ones((*q.shape[:-1], v.shape[-1]), np.float32), *saved)
    return counts.by_op


def test_attention():
    from xbackprop.nn.attention.dot_product import (
        scaled_dot_product_attention_backward as backward,
    )
    from xbackprop.nn.attention.dot_product import scaled_dot_product_attention_forward as forward

    batch, heads, queries, keys, features, values = 2, 3, 5, 7, 4, 6
    q = ones(batch, heads, queries, features)
    k, v = ones(batch, heads, keys, features), ones(batch, heads, keys, values)
    counts = attention_counts(forward, backward, q, k, v)
    pairs = batch * heads * queries * keys
    # A score is a product of `features` numbers; a pair hands on `values` numbers.
    assert counts[forward.name] == [pairs * 2 * features + pairs * 2 * values]
    # The scores anew; dQ and dK from each score's gradient; dP and dV from each pair.
    assert counts[backward.name] == [3 * pairs * 2 * features + 2 * pairs * 2 * values]
    # Two queries at a time see 2, 4 and 5 keys.
    counts = attention_counts(forward, backward, q, k, v, is_causal=True, block_size=2)
    pairs = batch * heads * (2 * 2 + 2 * 4 + 1 * 5)
    assert counts[forward.name] == [pairs * 2 * features + pairs * 2 * values]
    assert counts[backward.name] == [3 * pairs * 2 * features + 2 * pairs * 2 * values]


def test_multihead_attention_with_and_without_weights():
    layer = nn.MultiheadAttention(8, 2, batch_first=True, device="cpu", rng=0)
    x = ones(3, 5, 8)
    pairs = 3 * 2 * 5 * 5
    counts = Counted()
    with observe(counts):
        output, saved = layer.forward(x, x, x, need_weights=True)
        layer.backward((output[0], None), saved)
    assert counts.by_op["weighted_attention_forward"] == [2 * pairs * 2 * 4]
    assert counts.by_op["weighted_attention_backward"] == [4 * pairs * 2 * 4]


def test_bilinear():
    layer = nn.Bilinear(3, 4, 5, device="cpu", rng=0)
    counts = Counted()
    with observe(counts):
        output, saved = layer.forward(ones(6, 3), ones(6, 4))
        layer.backward(output, saved)
    pairs = 6 * 3 * 4
    assert counts.by_op["bilinear_forward"] == [pairs + pairs * 2 * 5]
    products_and_rest = pairs * 2 * 5 + pairs * 2 + pairs * 2
    assert counts.by_op["bilinear_backward"] == [products_and_rest + pairs + pairs * 2 * 5]


def test_embedding():
    layer = nn.Embedding(10, 4, device="cpu", rng=0)
    counts = counted(layer, np.arange(6).reshape(2, 3)).by_op
    assert counts["embedding_forward"] == [0]
    assert counts["embedding_backward"] == [6 * 4]


@pytest.mark.parametrize(
    ("layer", "forward", "backward"),
    [
        (nn.ReLU(), 1, 2),  # maximum; a comparison and where
        (nn.Tanh(), 1, 3),  # output * output, 1 - that, times grad
        (nn.Sigmoid(), 4, 3),  # -x, exp, 1 + that, 1 / that
        (nn.SiLU(), 4, None),
        (nn.Softmax(1), 2, None),  # exp and a division, and the sum below
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_elementwise_ops_count_each_operation_of_their_formula(layer, forward, backward):
    counts = counted(layer, ones(6, 5)).by_op
    (found, *_), (grad, *_) = (value for _, value in sorted(counts.items(), reverse=True))
    sums = 30 if isinstance(layer, nn.Softmax) else 0
    assert found == 30 * forward + sums
    if backward is not None:
        assert grad == 30 * backward


def test_layer_norm_counts_its_sums():
    layer = nn.LayerNorm(5, device="cpu")
    counts = counted(layer, ones(6, 5)).by_op
    size, rows = 30, 6
    mean = size + rows  # a sum, a division
    var = size + size + mean  # differences, squares, their mean
    assert counts["normalize_forward"] == [
        mean + var + rows + rows + size + size + size  # + eps, sqrt, /, weight, bias
    ]
    # g w, its mean; g w x_hat, its mean, times x_hat; two differences, times rstd.
    grad_x = size + mean + size + mean + size + 2 * size + size
    # The sums of g x_hat and of g for weight and bias.
    assert counts["normalize_backward"] == [grad_x + size + size + size]


def test_batch_norm_in_evaluation():
    layer = nn.BatchNorm2d(3, device="cpu").eval()
    counts = counted(layer, ones(2, 3, 4, 5)).by_op
    size, channels = 2 * 3 * 4 * 5, 3
    # x - mean, / root, weight, bias for each element; + eps, sqrt for each channel.
    assert counts["normalize_by_forward"] == [4 * size + 2 * channels]
    # g w rstd; g x_hat and its sum; the sum of g.
    assert counts["normalize_by_backward"] == [2 * size + 2 * size + size]


def test_every_op_of_every_row_has_a_count_or_none():
    counts = Counted()
    for case in layer_cases.CASES:
        with xb.use_device("cpu"), observe(counts):
            layer = case.make().to(dtype=np.float64)
            inputs = case.inputs(np.random.default_rng(1))
            inputs = inputs if isinstance(inputs, tuple) else (inputs,)
            output, saved = layer.forward(*inputs)
            grads = random_like(output, np.random.default_rng(2))
            backward_of_all_inputs(layer, grads, saved, len(inputs))
    assert len(counts.by_op) > 150
    for name, found in counts.by_op.items():
        assert all(number is None or (type(number) is int and number >= 0) for number in found), (
            name, found,
        )  # fmt: skip
    for name in ("linear", "convolution", "lstm", "gru", "scaled_dot_product_attention", "relu",
                 "gelu", "softmax", "dropout", "embedding", "pixel_shuffle"):  # fmt: skip
        for direction in ("forward", "backward"):
            assert None not in counts.by_op[f"{name}_{direction}"], (name, direction)


def test_what_has_no_count_stays_without():
    layer = nn.MaxPool2d(2)
    counts = counted(layer, ones(1, 1, 4, 4)).by_op
    assert counts["max_pool_forward"] == [None]


def test_options_that_the_formula_does_not_show_leave_no_count():
    output, target = ones(3, 4), ones(3, 4)
    for reduction, expected in (("mean", 12 + 12 + 12 + 1), ("none", None)):
        counts = Counted()
        with observe(counts):
            nn.MSELoss(reduction=reduction).forward(output, target)
        assert counts.by_op["mse_loss_forward"] == [expected]


@pytest.mark.torch_parity
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Linear", (7, 5), (2, 3, 7)),
        ("Conv2d", (4, 6, (3, 2), 2, 1), (2, 4, 8, 9)),
        ("Conv1d", (4, 6, 3, 1, 1, 2), (2, 4, 8)),  # no groups: it counts their dW without them
        ("ConvTranspose2d", (4, 6, 3, 2), (2, 4, 5, 5)),
    ],
)
def test_pytorch_counts_the_same(name, arguments, shape):
    torch = import_torch()
    from torch.utils.flop_counter import FlopCounterMode

    layer, theirs = getattr(nn, name)(*arguments, device="cpu"), getattr(torch.nn, name)(*arguments)
    ours = counted(layer, ones(*shape)).by_op
    with FlopCounterMode(display=False) as forward:
        output = theirs(torch.ones(shape, requires_grad=True))
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    found = {"forward": forward.get_total_flops(), "backward": backward.get_total_flops()}
    directions = {key.rpartition("_")[2]: values for key, values in ours.items()}
    directions.pop("product", None)  # inside of the two
    assert {key: value for key, (value,) in directions.items()} == found
