"""The strict stand-in GPU: NumPy inside, CuPy's rules (or stricter) outside."""

from xbackprop.backend.fake.array import copy_to_peer, upload
from xbackprop.backend.fake.execute import FakeArray
from xbackprop.backend.fake.memory import (
    current_device,
    current_index,
    memory_of,
    set_memory_limit,
)
from xbackprop.backend.fake.namespace import xp

__all__ = [
    "FakeArray",
    "copy_to_peer",
    "current_device",
    "current_index",
    "memory_of",
    "set_memory_limit",
    "upload",
    "xp",
]
