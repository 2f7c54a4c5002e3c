"""TensorFloat-32: products of float32 whose operands the GPU rounds to 10 bits of mantissa."""

import contextlib
from collections.abc import Iterator

import numpy as np

from xbackprop.backend.device import Device

_FIRST_CAPABILITY = 80  # Ampere


def check_tf32(device: Device) -> None:
    """Refuse a device that has no TF32.

    Parameters
    ----------
    device : Device
        Where the products are to run.

    Raises
    ------
    NotImplementedError
        On the CPU and on the stand-in GPU, which would compute in float32 under another name, and
        on GPUs before Ampere.
    """
    if device.kind != "cuda":
        raise NotImplementedError(
            f"precision 'tf32' on {device}: only GPUs have TF32. Choose 'float32', or 'bfloat16', "
            "which the CPU emulates."
        )
    capability = int(device.xp.cuda.Device(device.index).compute_capability)
    if capability < _FIRST_CAPABILITY:
        raise NotImplementedError(
            f"precision 'tf32' on {device}: it has compute capability {capability / 10:.1f}, and "
            "TF32 begins with 8.0. Choose 'float32' or 'float16'."
        )


@contextlib.contextmanager
def tf32_products(device: Device) -> Iterator[None]:
    """Let CuPy's float32 products use TF32 in a ``with`` block.

    CuPy keeps this choice for the process (``CUPY_TF32=1`` makes it for all of one), so products
    of other threads follow it while the block runs.
    """
    check_tf32(device)
    from cupy._core import _routines_linalg as products

    before = products.get_compute_type(np.float32)
    products.set_compute_type(np.float32, products.COMPUTE_TYPE_TF32)
    try:
        yield
    finally:
        products.set_compute_type(np.float32, before)
