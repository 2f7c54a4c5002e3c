"""Rows of the table as Python files: the same outputs and gradients without this library."""

import re
import subprocess
import sys

import numpy as np
import pytest
from layer_cases import CASES
from layer_cases.losses import LOSSES

import xbackprop as xb
from xbackprop import nn
from xbackprop.interop.numpy import save_numpy

# Layers that are one op forward and one backward: with any options they must be printed.
PRINTED = (
    nn.Linear, nn.LazyLinear, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d,
    nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Unfold, nn.Fold, nn.ReLU, nn.ReLU6, nn.Hardtanh,
    nn.Threshold, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.Sigmoid,
    nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softsign, nn.Softplus, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.GLU, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Softmax, nn.Softmin,
    nn.LogSoftmax, nn.Softmax2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm,
    nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LocalResponseNorm,
    nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
    nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d, nn.MaxPool1d, nn.MaxPool2d,
    nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Flatten, nn.Unflatten, nn.Upsample,
    nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ChannelShuffle, nn.RotaryEmbedding, nn.SinusoidalPositionalEncoding,
    nn.LearnedPositionalEmbedding,
)  # fmt: skip
# But for these: samples without a batch, and outputs that are two.
EXCEPT = (
    "one sample", "1-D sample", "a number", "nothing", "return_indices", "used twice", "tied",
    "time first", "Parallel", "of numbers", "one image", "empty", "Recompute", "of one index",
    "along the first axis", "of all axes", "of (9", "cutting", "of all there is",
)  # fmt: skip


def draw(case):
    made = case.inputs(np.random.default_rng(0))
    inputs = [np.asarray(x) for x in (made if isinstance(made, tuple) else (made,))]
    return [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]


LAYERS = [case for case in CASES if case not in LOSSES and len(draw(case)) == 1]


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with xb.use_device("cpu"):
        yield


def imported(path):
    scope = {"__file__": str(path), "__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    return scope


def compare(scope, model, x):
    expected, kept = model.forward(x)
    output, saved = scope["forward"](x)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    grad = np.random.default_rng(1).normal(size=output.shape).astype(output.dtype)
    grad_x, grads = scope["backward"](grad, saved)
    model.zero_grad()
    expected_grad = model.backward(grad, kept)
    if expected_grad is None:
        assert grad_x is None
    else:
        np.testing.assert_allclose(grad_x, expected_grad, rtol=1e-5, atol=1e-6)
    prefix = "" if isinstance(model, nn.Sequential) else "layer."
    trained = {prefix + name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(grads) == set(trained)
    for name, parameter in trained.items():
        assert grads[name].shape == parameter.shape
        np.testing.assert_allclose(grads[name], parameter.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name.replace(" ", "-"))
def test_file_computes_the_same_or_is_refused_by_name(case, tmp_path):
    model, (x,) = case.make().eval(), draw(case)
    path = tmp_path / "net.py"
    message = None
    try:
        save_numpy(path, model, x)
    except (NotImplementedError, ValueError) as refusal:
        message = str(refusal)
    if message is not None:
        is_exception = any(words in case.name for words in EXCEPT)
        assert is_exception or not isinstance(model, PRINTED), message
        named = re.match(r"export to NumPy: (\w+ at '|.* is .* too)", message)
        assert named or message.startswith("save_numpy expects x with a batch"), message
        assert not list(tmp_path.iterdir())
        return
    with xb.use_references():  # which are what the file holds
        compare(imported(path), model, x)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.LayerNorm(5), nn.GELU()), nn.Dropout(0.5),
        nn.Linear(5, 2), rng=0,
    )  # fmt: skip


def test_a_clean_process_needs_numpy_only(tmp_path):
    model = network()
    x = np.random.default_rng(2).normal(size=(7, 1, 4, 4)).astype(np.float32)
    model(xb.asarray(x))
    save_numpy(tmp_path / "net.py", model, x[:2])
    compare(imported(tmp_path / "net.py"), model.eval(), x)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, net; x = np.load('x.npy'); y, saved = net.forward(x); "
        "g, grads = net.backward(np.ones_like(y), saved); "
        "np.savez('out.npz', y=y, g=g, w=grads['0.weight']); "
        "assert not [m for m in sys.modules if m.startswith('xbackprop')]"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": ""},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    output, saved = model.forward(x)
    model.zero_grad()
    grad = model.backward(np.ones_like(output), saved)
    with np.load(tmp_path / "out.npz") as made:
        np.testing.assert_allclose(made["y"], output, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made["g"], grad, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(made["w"], model[0].weight.grad, rtol=1e-5, atol=1e-5)


def test_embedding_has_the_gradient_of_its_table(tmp_path):
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(12, 2), rng=0).eval()
    tokens = np.random.default_rng(0).integers(0, 6, (5, 4))
    save_numpy(tmp_path / "net.py", model, tokens)
    compare(imported(tmp_path / "net.py"), model, tokens)


def test_the_functions_are_those_that_train(tmp_path):
    save_numpy(tmp_path / "net.py", network(), np.zeros((2, 1, 4, 4)))
    text = (tmp_path / "net.py").read_text(encoding="utf-8")
    assert "xbackprop" not in text.replace("xbackprop export", "")
    assert "``dLoss/dW = g^T x``" in text
    assert "x, saved['0'] = convolution_forward(x, p['0.weight'], p['0.bias'], (1, 1)" in text


def test_what_is_refused_is_named(tmp_path):
    path = tmp_path / "net.py"
    with pytest.raises(NotImplementedError, match="LSTM at 'layer' is more than one op"):
        save_numpy(path, nn.LSTM(2, 3), np.zeros((2, 4, 2)))
    shared = nn.Linear(3, 3)
    with pytest.raises(NotImplementedError, match=r"1\.weight is 0\.weight too"):
        save_numpy(path, nn.Sequential(shared, shared), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"expects a \.py file"):
        save_numpy(tmp_path / "net.txt", nn.ReLU(), np.zeros((2, 3)))
    assert not list(tmp_path.iterdir())
