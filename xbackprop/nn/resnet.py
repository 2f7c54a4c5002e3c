"""Residual networks for images: blocks whose gradient has a way around them."""

import math
from collections.abc import Sequence
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator, normal
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import ReLU
from xbackprop.nn.containers import Sequential
from xbackprop.nn.containers.sequential import backward_through, forward_through
from xbackprop.nn.convolution import Conv2d
from xbackprop.nn.linear import Linear
from xbackprop.nn.normalization import BatchNorm2d
from xbackprop.nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from xbackprop.nn.reshape import Flatten
from xbackprop.nn.sizes import as_count


class BasicBlock(Module):
    """Two 3x3 convolutions and a way around them, ``y = relu(f(x) + shortcut(x))``.

    ``f`` is convolution, BatchNorm, ReLU, convolution, BatchNorm. The shortcut is the identity, or
    a 1x1 convolution with BatchNorm where ``f`` changes the shape.

    Parameters
    ----------
    in_channels : int
        Channels of ``x``.
    out_channels : int
        Channels of ``y``.
    stride : int, default 1
        Of the first convolution and the shortcut.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        Of the parameters, a float dtype; None is float32.
    rng : Generator, int or None
        Draws the initial values.

    Notes
    -----
    With ``g = dLoss/dy`` where ``y > 0``, else 0, ``dLoss/dx`` is ``f.backward(g) +
    shortcut.backward(g)``: what goes around ``f`` reaches ``x`` unchanged.
    The names of the children are those of torchvision's ``BasicBlock``.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        streams = as_generator(rng).spawn(3)
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.conv1 = _convolution(in_channels, out_channels, 3, stride, streams[0], place)
        self.bn1 = BatchNorm2d(out_channels, **place)
        self.relu = ReLU()
        self.conv2 = _convolution(out_channels, out_channels, 3, 1, streams[1], place)
        self.bn2 = BatchNorm2d(out_channels, **place)
        self.downsample: Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            projection = _convolution(in_channels, out_channels, 1, stride, streams[2], place)
            self.downsample = Sequential(projection, BatchNorm2d(out_channels, **place))

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, each layer's from its own stream."""
        _reset(self, rng)

    def _branch(self) -> tuple[Module, ...]:
        return self.conv1, self.bn1, self.relu, self.conv2, self.bn2

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return what the block makes of ``(batch, in_channels, height, width)``."""
        shortcut, shortcut_saved = x, None
        if self.downsample is not None:
            shortcut, shortcut_saved = self.downsample.forward(x)
        branch, branch_saved = forward_through(self._branch(), x)
        output, relu_saved = self.relu.forward(branch + shortcut)
        return output, [shortcut_saved, branch_saved, relu_saved]

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the gradients of both ways."""
        shortcut_saved, branch_saved, relu_saved = saved
        grad_sum = self.relu.backward(grad_output, relu_saved)
        grad_branch = backward_through(self._branch(), grad_sum, branch_saved, input_grad)
        grad_shortcut = grad_sum
        if self.downsample is not None:
            grad_shortcut = self.downsample.backward(
                grad_sum, shortcut_saved, input_grad=input_grad
            )
        return None if grad_branch is None else grad_branch + grad_shortcut

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


class ResNet(Module):
    """A residual network; by default ResNet-18, whose PyTorch state dict loads by name.

    A first convolution with BatchNorm, ReLU and max pooling; four stages of :class:`BasicBlock`, of
    which all but the first halve height and width and double the channels; the mean of every
    channel; a linear layer.

    Parameters
    ----------
    layers : sequence of int, default (2, 2, 2, 2)
        Blocks of each stage: (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) is ResNet-34.
    num_classes : int, default 1000
        Outputs.
    in_channels : int, default 3
        Channels of the images.
    width : int, default 64
        Channels of the first stage.
    small_images : bool, default False
        Begin with a 3x3 convolution of stride 1 and no pooling, in place of one of 7x7 and stride 2
        and a pooling of 3x3 and stride 2: for images below some 64 pixels.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        Of the parameters, a float dtype; None is float32.
    rng : Generator, int or None
        Draws the initial values.

    Notes
    -----
    Initial weights are those of torchvision: convolutions are drawn from a normal distribution with
    variance ``2 / (out_channels * kernel elements)``, so that gradients keep their size on the way
    back. Backward is the chain rule from the last layer to the first.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1; section
    4.2 for small images.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.ResNet(num_classes=10, in_channels=1, width=8, small_images=True, rng=0)
    >>> sorted(model.state_dict())[:3]
    ['bn1.bias', 'bn1.num_batches_tracked', 'bn1.running_mean']
    >>> model(xb.asarray([[[[0.0] * 28] * 28]])).shape
    (1, 10)
    """

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        width: int = 64,
        small_images: bool = False,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"ResNet expects layers to be four numbers from 1 on; got {layers}")
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        streams = as_generator(rng).spawn(6)
        width = as_count("ResNet", "width", width, 1)
        self.layers, self.num_classes, self.width = tuple(layers), num_classes, width
        self.in_channels, self.small_images = in_channels, bool(small_images)
        kernel_size, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = _convolution(in_channels, width, kernel_size, stride, streams[0], place)
        self.bn1 = BatchNorm2d(width, **place)
        self.relu = ReLU()
        self.maxpool = None if small_images else MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, layers[0], 1, streams[1], place)
        self.layer2 = _stage(width, 2 * width, layers[1], 2, streams[2], place)
        self.layer3 = _stage(2 * width, 4 * width, layers[2], 2, streams[3], place)
        self.layer4 = _stage(4 * width, 8 * width, layers[3], 2, streams[4], place)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.fc = Linear(8 * width, num_classes, rng=streams[5], **place)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, each layer's from its own stream."""
        _reset(self, rng)

    def _order(self) -> tuple[Module, ...]:
        pooling = () if self.maxpool is None else (self.maxpool,)
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        head = (self.avgpool, self.flatten, self.fc)
        return self.conv1, self.bn1, self.relu, *pooling, *stages, *head

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return ``(batch, num_classes)`` scores of ``(batch, in_channels, height, width)``."""
        if getattr(x, "ndim", 4) != 4:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, {self.in_channels}, height, "
                f"width); got {x.shape}"
            )
        return forward_through(self._order(), x)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Pass the gradient back through all layers."""
        return backward_through(self._order(), grad_output, saved, input_grad)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = f"{self.layers}, num_classes={self.num_classes}, in_channels={self.in_channels}"
        return f"{shown}, width={self.width}, small_images={self.small_images}"


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    rng: RandomSource,
    place: dict[str, Any],
) -> Conv2d:
    """Return a convolution without bias that keeps the size of the image at stride 1."""
    sizes = (in_channels, out_channels, kernel_size, stride, kernel_size // 2)
    layer = Conv2d(*sizes, bias=False, rng=rng, **place)
    _draw_weight(layer, rng)
    return layer


def _draw_weight(layer: Conv2d, rng: RandomSource) -> None:
    weight = layer.weight
    std = math.sqrt(2.0 / (layer.out_channels * math.prod(layer.kernel_size)))
    drawn = normal(weight.shape, std, rng=rng, dtype=weight.dtype, device=weight.device)
    layer.load_state_dict({"weight": drawn})


def _reset(module: Module, rng: RandomSource) -> None:
    """Draw the children's initial values anew, each from a stream of its own."""
    children = list(module.children())
    for child, stream in zip(children, as_generator(rng).spawn(len(children)), strict=True):
        if isinstance(child, Conv2d):
            _draw_weight(child, stream)
        elif isinstance(child, Sequential):
            _reset(child, stream)
        elif hasattr(child, "reset_parameters"):
            child.reset_parameters(stream)


def _stage(
    in_channels: int,
    out_channels: int,
    blocks: int,
    stride: int,
    rng: RandomSource,
    place: dict[str, Any],
) -> Sequential:
    streams = as_generator(rng).spawn(blocks)
    first = BasicBlock(in_channels, out_channels, stride, rng=streams[0], **place)
    others = (BasicBlock(out_channels, out_channels, rng=rng, **place) for rng in streams[1:])
    return Sequential(first, *others)
