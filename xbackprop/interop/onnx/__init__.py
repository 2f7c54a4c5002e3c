"""Networks as ONNX models: what they do in evaluation mode, for programs that run those."""

from xbackprop.interop.onnx.export import save_onnx, to_onnx

__all__ = ["save_onnx", "to_onnx"]
