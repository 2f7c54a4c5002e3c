"""Rows of whole networks, beside PyTorch modules with torchvision's names."""

from typing import Any

from layer_cases.case import Case, normal
from xbackprop import nn


def block_torch(torch: Any, in_channels: int, out_channels: int, stride: int) -> Any:
    class TorchBlock(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
            self.conv1 = conv(in_channels, out_channels, 3, stride, 1, bias=False)
            self.bn1 = norm(out_channels)
            self.conv2 = conv(out_channels, out_channels, 3, 1, 1, bias=False)
            self.bn2 = norm(out_channels)
            self.downsample = None
            if stride != 1 or in_channels != out_channels:
                projection = conv(in_channels, out_channels, 1, stride, bias=False)
                self.downsample = torch.nn.Sequential(projection, norm(out_channels))

        def forward(self, x: Any) -> Any:
            branch = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (branch + (x if self.downsample is None else self.downsample(x))).relu()

    return TorchBlock()


def resnet_torch(
    torch: Any, layers: tuple[int, ...], classes: int, channels: int, width: int, is_small: bool
) -> Any:
    def stage(number: int) -> Any:
        out, inner = width * 2**number, width * 2 ** max(number - 1, 0)
        first = block_torch(torch, inner, out, 2 if number else 1)
        others = (block_torch(torch, out, out, 1) for _ in range(layers[number] - 1))
        return torch.nn.Sequential(first, *others)

    class TorchResNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            begin = (3, 1, 1) if is_small else (7, 2, 3)
            self.conv1 = torch.nn.Conv2d(channels, width, *begin, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(width)
            self.maxpool = torch.nn.Identity() if is_small else torch.nn.MaxPool2d(3, 2, 1)
            self.layer1, self.layer2 = stage(0), stage(1)
            self.layer3, self.layer4 = stage(2), stage(3)
            self.fc = torch.nn.Linear(8 * width, classes)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.bn1(self.conv1(x)).relu())
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    return TorchResNet()


# A network with a thousand ReLUs has a kink near most points, and one sample of it makes few
# numbers to normalize: these seeds and sizes are such that differences are exact enough.
MODELS = [
    Case(
        "block",
        lambda: nn.BasicBlock(3, 3, rng=1),
        normal(2, 3, 4, 4),
        lambda torch: block_torch(torch, 3, 3, 1),
    ),
    Case(
        "block_that_shrinks",
        lambda: nn.BasicBlock(2, 4, stride=2, rng=1),
        normal(2, 2, 5, 5),
        lambda torch: block_torch(torch, 2, 4, 2),
    ),
    Case(
        "resnet",
        lambda: nn.ResNet((1, 1, 1, 1), 3, in_channels=2, width=1, rng=7),
        normal(4, 2, 33, 33),
        lambda torch: resnet_torch(torch, (1, 1, 1, 1), 3, 2, 1, is_small=False),
        has_batch=False,
        is_network=True,
    ),
    Case(
        "resnet_small_images",
        lambda: nn.ResNet((2, 1, 1, 1), 3, in_channels=1, width=2, small_images=True, rng=53),
        normal(4, 1, 12, 12),
        lambda torch: resnet_torch(torch, (2, 1, 1, 1), 3, 1, 2, is_small=True),
        has_batch=False,
        is_network=True,
    ),
]
