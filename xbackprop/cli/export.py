"""``xbackprop export``: a trained network as a file that other programs run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.device import use_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.parser import LineParser, one_of
from xbackprop.cli.run_folder import MODEL, check_place, writing

FORMATS = {"onnx": ".onnx", "numpy": ".py"}


@dataclass(frozen=True)
class ExportOptions:
    """A request to export.

    Attributes
    ----------
    model : str
        A run folder, or a model's file.
    format : str
        One of ``FORMATS``.
    out : str or None
        The file to write; None is one beside the model.
    """

    model: str
    format: str = "onnx"
    out: str | None = None


def read_export_options(words: Sequence[str]) -> ExportOptions:
    """Read the arguments of ``xbackprop export``.

    Parameters
    ----------
    words : sequence of str
        Without the command's name.

    Returns
    -------
    ExportOptions
    """
    parser = LineParser(
        "xbackprop export",
        "Write a trained network as an ONNX model, or as one Python file that needs NumPy only,\n"
        "with forward and backward. Either takes what the network takes: numbers after a table's\n"
        "preparation, which stands in the ONNX file's metadata with classes and columns.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, or its model.safetensors")
    parser.add_argument(
        "--format",
        type=one_of(tuple(FORMATS)),
        metavar="NAME",
        help="onnx, opset 17 (default; extra onnx), or numpy, for chains of plain layers",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="what to write (default: model.onnx or model.py in the folder)",
    )
    options = ExportOptions(**vars(parser.read(words)))
    suffix = FORMATS[options.format]
    if options.out is not None and Path(options.out).suffix.lower() != suffix:
        raise CommandError(f"--out: expected a {suffix} file; got {options.out}")
    return options


def run_export(options: ExportOptions) -> int:
    """Write the file.

    Parameters
    ----------
    options : ExportOptions
        The request.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    CommandError
        For a model that cannot be read or expressed, a place that is none, without the extra, and
        when the disk refuses.
    """
    from xbackprop.interop.numpy import save_numpy
    from xbackprop.interop.onnx import save_onnx
    from xbackprop.training import CheckpointError, load

    path = Path(options.model) / MODEL if Path(options.model).is_dir() else Path(options.model)
    out = path.with_suffix(FORMATS[options.format]) if options.out is None else Path(options.out)
    if options.out is not None:
        check_place(out)
    try:
        checkpoint = load(path, device="cpu")
    except CheckpointError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error
    sample, about = _sample(path, checkpoint.model, checkpoint.counters)
    try:
        with use_device("cpu"), writing(out):
            if options.format == "numpy":
                save_numpy(out, checkpoint.model, sample)
            else:
                save_onnx(out, checkpoint.model, sample, metadata={"xbackprop": json.dumps(about)})
    except (NotImplementedError, ModuleNotFoundError, TypeError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from error
    shape = ", ".join(map(str, ("batch", *sample.shape[1:])))
    print(f"{out}: input of shape ({shape})")
    return 0


def _sample(path: Path, model: nn.Module, counters: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return an input of the model, and what its numbers mean."""
    if isinstance(model, nn.GPT):
        return np.zeros((1, model.context_length), np.int64), {
            "tokenizer": counters.get("tokenizer")
        }
    table = counters.get("table")
    try:
        shape = tuple(map(int, table["sample_shape"]))  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(
            f"{path}: does not say which inputs it takes. Expected a model that `xbackprop train` "
            "wrote; in Python, xbackprop.interop.onnx.save_onnx takes any"
        ) from error
    return np.zeros((1, *shape), np.float32), {
        "table": table, "standardize": counters.get("standardize")
    }  # fmt: skip
