"""Exchange with other libraries; each is imported only when one of its functions is called."""

from xbackprop.interop import numpy, onnx, torch

__all__ = ["numpy", "onnx", "torch"]
