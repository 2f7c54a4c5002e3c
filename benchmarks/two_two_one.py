"""One training step of the 2-2-1 network beside PyTorch eager, one thread each.

Run: python benchmarks/two_two_one.py [--out FILE]. Both do zero_grad, forward, 1/2 (y_hat - y)^2,
backward and an SGD step on the same float32 sample; the weights are compared afterwards.
"""

import argparse
import os

# Before NumPy and PyTorch load, since their thread pools are made then.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import harness  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import xbackprop as xb  # noqa: E402

X, Y, LR = [[1.0, 2.0]], [[1.0]], 0.01


def make_ours():
    model = xb.nn.Sequential(
        xb.nn.Linear(2, 2, device="cpu"), xb.nn.ReLU(), xb.nn.Linear(2, 1, device="cpu"), rng=0
    )
    loss_fn = xb.nn.HalfSquaredError()
    optimizer = xb.optim.SGD(model.parameters(), lr=LR)
    x, y = xb.asarray(X, device="cpu"), xb.asarray(Y, device="cpu")

    def step():
        optimizer.zero_grad()
        output, saved = model.forward(x)
        _, loss_saved = loss_fn.forward(output, y)
        model.backward(loss_fn.backward(1.0, loss_saved), saved, input_grad=False)
        optimizer.step()

    compute = xb.value_and_grad(model, loss_fn)

    def step_without_saved():
        optimizer.zero_grad()
        compute(x, y)
        optimizer.step()

    return model, step, step_without_saved


def make_torch(state):
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    x, y = torch.tensor(X), torch.tensor(Y)

    def step():
        optimizer.zero_grad()
        difference = model(x) - y
        loss = (difference * difference).sum() * 0.5
        loss.backward()
        optimizer.step()

    return model, step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    ours, our_step, _ = make_ours()
    _, _, short_step = make_ours()
    theirs, their_step = make_torch(ours.state_dict())
    times = harness.time_in_turn(
        {
            "xbackprop loop": our_step,
            "xbackprop value_and_grad": short_step,
            "pytorch eager": their_step,
        }
    )
    for name, array in ours.state_dict().items():
        expected = theirs.state_dict()[name].numpy()
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    summary = harness.summarize(times)
    theirs_us = summary["pytorch eager"]["median_us"]
    result = {
        "workload": "2-2-1 ReLU, batch 1, float32, SGD, one thread",
        "times": summary,
        "ratio_of_medians": {name: theirs_us / row["median_us"] for name, row in summary.items()},
        "rounds": len(times["pytorch eager"]),
        "calls_of_one_step": {
            "xbackprop loop": harness.count_calls(our_step),
            "xbackprop value_and_grad": harness.count_calls(short_step),
            "pytorch eager": harness.count_calls(their_step),
        },
        "environment": {
            **harness.environment("numpy", "torch"),
            "xbackprop": xb.__version__,
        },
    }
    harness.report("two_two_one", result, arguments.out)


if __name__ == "__main__":
    main()
