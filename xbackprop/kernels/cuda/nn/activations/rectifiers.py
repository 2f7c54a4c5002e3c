"""The derivative of ReLU in one launch; its forward is one of CuPy's.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from xbackprop.backend.array_module import Array
from xbackprop.kernels.cuda import elementwise
from xbackprop.kernels.cuda.sources import Source
from xbackprop.nn.activations.rectifiers import relu_backward as op

SOURCE = Source(__file__, elementwise.instances(two=("ReluGradient",)))


@op.kernel("cuda", when=elementwise.can_serve, launches=1, bytes_moved=elementwise.bytes_moved)
def relu_backward(grad_output: Array, output: Array) -> Array:
    """Return ``g`` where ``y > 0``, else 0."""
    return elementwise.launch(SOURCE, "ReluGradient", grad_output, output)
