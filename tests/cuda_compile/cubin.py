"""Compile a CUDA source to machine code for any architecture, without a GPU or a driver.

CuPy's own compile function asks the driver for the architecture, so this is one level below it: its
binding of NVRTC, with the options that it gives to a RawModule.
"""

import re
from typing import NamedTuple

from cupy_backends.cuda.libs import nvrtc

from xbackprop.kernels.cuda.sources import OPTIONS, Source

ALWAYS = ("-ftz=true", "--device-as-default-execution-space")  # what CuPy adds
ELF = b"\x7fELF"


class Resources(NamedTuple):
    """What one kernel takes on one architecture."""

    registers: int
    stack_bytes: int
    spilled_bytes: int  # stores and loads
    shared_bytes: int


def compile_cubin(
    source: Source, architecture: int, instances: tuple[str, ...]
) -> tuple[bytes, dict[str, Resources]]:
    """Return machine code, and the resources of each instance.

    Parameters
    ----------
    source : Source
        What to compile.
    architecture : int
        80 for compute capability 8.0.
    instances : tuple of str
        Of the source's, those wanted.

    Returns
    -------
    cubin : bytes
    resources : dict of str to Resources
    """
    program = nvrtc.createProgram(source.text, source.path.name, (), ())
    try:
        for instance in instances:
            nvrtc.addNameExpression(program, instance)
        try:
            options = (*OPTIONS, *ALWAYS, "--ptxas-options=-v", f"-arch=sm_{architecture}")
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as error:
            raise SystemExit(f"{source.path}: {error}\n{nvrtc.getProgramLog(program)}") from error
        log = nvrtc.getProgramLog(program)
        names = {instance: nvrtc.getLoweredName(program, instance) for instance in instances}
        cubin = nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)
    if "warning" in log:
        raise SystemExit(f"{source.path} for sm_{architecture}:\n{log}")
    read = read_log(log)
    return cubin, {instance: read[name] for instance, name in names.items()}


def read_log(log: str) -> dict[str, Resources]:
    """Return what ptxas says of each entry function."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        name = part.split("'", 1)[0]
        shared = re.search(r"(\d+) bytes smem", part)
        found[name] = Resources(
            int(_number(r"Used (\d+) registers", part)),
            int(_number(r"(\d+) bytes stack frame", part)),
            int(_number(r"(\d+) bytes spill stores", part))
            + int(_number(r"(\d+) bytes spill loads", part)),
            int(shared[1]) if shared else 0,
        )
    return found


def _number(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"ptxas says nothing like {pattern!r} here:\n{text}")
    return match[1]
