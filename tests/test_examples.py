"""The lesson's numbers, derived by hand, and its program."""

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.examples import two_two_one


def gradients(activation, loss, x, y):
    model, loss_fn = two_two_one.make_network(activation, loss)
    output, saved = model.forward(x)
    value, loss_saved = loss_fn.forward(output, y)
    model.backward(loss_fn.backward(1.0, loss_saved), saved)
    found = {name: xb.to_host(parameter.grad) for name, parameter in model.named_parameters()}
    return model, float(value), found


def test_relu_and_half_squared_error_by_hand(xb_device):
    # Hidden sums (-0.6, 0.8), hidden values (0, 0.8), y_hat = 0.4 * 0.8 - 0.1 = 0.22.
    x = xb.asarray([0.0, 1.0], dtype=np.float64)
    y = xb.asarray([1.0], dtype=np.float64)
    _, loss, found = gradients("relu", "half", x, y)
    delta = 0.22 - 1.0  # dLoss/dy_hat = y_hat - y
    expected = {
        "2.weight": [[delta * 0.0, delta * 0.8]],
        "2.bias": [delta],
        "0.weight": [[0.0, 0.0], [0.0, delta * 0.4 * 1.0]],
        "0.bias": [0.0, delta * 0.4],
    }
    assert loss == pytest.approx(0.5 * 0.78**2, abs=1e-12)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12, err_msg=name)


def test_sigmoid_and_binary_cross_entropy_by_hand(xb_device):
    x = xb.asarray([1.0, 1.0], dtype=np.float64)
    y = xb.asarray([0.0], dtype=np.float64)
    _, loss, found = gradients("sigmoid", "bce", x, y)
    hidden = 1 / (1 + np.exp(-np.array([0.8 - 0.7 + 0.1, -0.9 + 0.6 + 0.2])))
    y_hat = 1 / (1 + np.exp(-(0.5 * hidden[0] + 0.4 * hidden[1] - 0.1)))
    delta = y_hat - 0.0  # the sigmoid and the logarithm cancel to y_hat - y
    back = delta * np.array([0.5, 0.4]) * hidden * (1 - hidden)
    assert loss == pytest.approx(-np.log(1 - y_hat), abs=1e-12)
    np.testing.assert_allclose(found["2.weight"], [delta * hidden], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["2.bias"], [delta], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["0.weight"], np.outer(back, [1, 1]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["0.bias"], back, rtol=0, atol=1e-12)


@pytest.mark.parametrize("xb_device", ["cpu"], indirect=True)
def test_a_sample_as_a_learner_types_it(xb_device):
    model, loss_fn = two_two_one.make_network()
    output, saved = model.forward(np.array([0.0, 1.0]))
    assert output.shape == (1,)
    assert output.dtype == np.float64
    _, loss_saved = loss_fn.forward(output, np.array([1.0]))
    grad_input = model.backward(loss_fn.backward(1.0, loss_saved), saved)
    np.testing.assert_allclose(grad_input, -0.78 * 0.4 * np.array([-0.9, 0.6]), atol=1e-12)


def test_one_update_by_hand(xb_device):
    x = xb.asarray([0.0, 1.0], dtype=np.float64)
    y = xb.asarray([1.0], dtype=np.float64)
    model, _, _ = gradients("relu", "half", x, y)
    xb.optim.SGD(model.parameters(), lr=0.5).step()
    state = model.state_dict()
    np.testing.assert_allclose(state["2.weight"], [[0.5, 0.4 + 0.5 * 0.78 * 0.8]], atol=1e-12)
    np.testing.assert_allclose(state["2.bias"], [-0.1 + 0.5 * 0.78], atol=1e-12)


@pytest.mark.parametrize("loss", ["half", "bce"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_program_learns_exclusive_or(xb_device, capsys, activation, loss):
    steps = 3000 if xb_device.kind == "cpu" else 40
    arguments = ["--activation", activation, "--loss", loss, "--steps", str(steps)]
    assert two_two_one.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("dLoss/d(0.weight)" in line for line in lines)
    if steps == 3000:
        answers = [float(line.rpartition("=")[2]) for line in lines[-4:]]
        np.testing.assert_allclose(answers, [0, 1, 1, 0], atol=0.02)
