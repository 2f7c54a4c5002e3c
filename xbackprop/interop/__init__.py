"""Exchange with other libraries; each is imported only when one of its functions is called."""

from xbackprop.interop import onnx, torch

__all__ = ["onnx", "torch"]
