"""Whether freed memory stays in the process, in a process of its own."""

import platform
import subprocess
import sys

import pytest

import xbackprop as xb
from xbackprop.backend import heap

ON_GLIBC = platform.libc_ver()[0] == "glibc"
PAGES_TOUCHED = """
import resource, sys
import numpy as np
import xbackprop as xb
if sys.argv[1] == "reuse":
    xb.reuse_memory()
np.ones(1 << 22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not ON_GLIBC, reason="no glibc here")
def test_freed_arrays_are_used_again_without_new_pages() -> None:
    pages = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", PAGES_TOUCHED, way],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for way in ("keep", "reuse")
    }  # fmt: skip
    assert pages["reuse"] < 50 < pages["keep"]


def test_it_is_refused_by_name_where_there_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.platform, "libc_ver", lambda: ("musl", "1.2"))
    with pytest.raises(NotImplementedError, match=r"reuse_memory on .* without glibc"):
        xb.reuse_memory()
