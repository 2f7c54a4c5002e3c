"""One convolution 64-64 on 32x32 images, forward and backward alone: W3."""

import contest
import initial
import numpy as np

BATCH, CHANNELS, SIDE = 32, 64, 32
WEIGHTS = initial.uniform({"weight": (CHANNELS, CHANNELS, 3, 3), "bias": (CHANNELS,)})
PRODUCTS = SIDE * SIDE * CHANNELS * CHANNELS * 9


def samples():
    rng = np.random.default_rng(1)
    shape = (BATCH, CHANNELS, SIDE, SIDE)
    return rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)


def ours():
    import xbackprop as xb

    x, grad_output = samples()
    layer = xb.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
    layer.load_state_dict(WEIGHTS)

    def step():
        for parameter in layer.parameters():
            parameter.zero_grad()
        output, saved = layer.forward(x)
        return output, layer.backward(grad_output, saved), layer.weight.grad

    return step


def pytorch(channels_last=False):
    import torch

    torch.set_num_threads(contest.threads())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, grad_output = (torch.from_numpy(a).to(memory_format=layout) for a in samples())
    layer = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(memory_format=layout)
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in WEIGHTS.items()})
    x.requires_grad_()

    def step():
        layer.zero_grad()
        x.grad = None
        output = layer(x)
        output.backward(grad_output)
        return output.detach(), x.grad, layer.weight.grad

    return step


def jax():
    import jax

    x, grad_output = (jax.numpy.asarray(a.transpose(0, 2, 3, 1)) for a in samples())
    kernel = jax.numpy.asarray(WEIGHTS["weight"].transpose(2, 3, 1, 0))
    bias = jax.numpy.asarray(WEIGHTS["bias"])

    def layer(x, kernel, bias):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias

    @jax.jit
    def both(x, kernel, bias, grad_output):
        output, back = jax.vjp(layer, x, kernel, bias)
        grad_x, grad_kernel, grad_bias = back(grad_output)
        return output, grad_x, grad_kernel, grad_bias

    def step():
        return both(x, kernel, bias, grad_output)

    return step


def jax_figure(results):
    output, grad_x, grad_kernel = results[:3]
    moved = output.transpose(0, 3, 1, 2), grad_x.transpose(0, 3, 1, 2)
    return *moved, grad_kernel.transpose(3, 2, 0, 1)


def figure(results):
    return sum(initial.figure_of_output(array) for array in laid_out(results))


def laid_out(results):
    return jax_figure(results) if len(results) == 4 else results  # JAX's are channels-last


WORKLOAD = contest.Workload(
    name="w3_convolution",
    title=f"W3: convolution 3x3, 64-64 on 32x32, batch {BATCH}, forward and backward",
    contestants={
        "xbackprop": ours,
        "PyTorch, default layout": pytorch,
        "PyTorch, channels-last": lambda: pytorch(channels_last=True),
        "JAX, jit": jax,
    },
    flops=3 * 2 * BATCH * PRODUCTS,
    bytes_moved=4 * BATCH * CHANNELS * SIDE * SIDE * 5,
    targets=(
        contest.Target("PyTorch, default layout", 0.95, 1.2),
        contest.Target("PyTorch, channels-last", 0.65, 1.0),
    ),
    figure=figure,
    wait={"JAX, jit": lambda results: [array.block_until_ready() for array in results]},
    checked=(1,),
    tolerance=1e-2,
    has_memory_target=True,
)


if __name__ == "__main__":
    contest.main(__file__, WORKLOAD)
