"""GPT-2's published weights, in the layout of Hugging Face's safetensors files, both ways."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from xbackprop.backend.device import Device
from xbackprop.initializers import placeholders
from xbackprop.interop.torch.files import read_safetensors
from xbackprop.nn import GPT

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_PREFIX, _HEAD, _EMBEDDING = "transformer.", "lm_head.weight", "wte.weight"
# Masks that older files carry; they are no weights.
_MASKS = (".attn.bias", ".attn.masked_bias")
# Hugging Face's Conv1D keeps (in, out), a Linear (out, in).
_TRANSPOSED = (
    ".attn.c_attn.weight",
    ".attn.c_proj.weight",
    ".mlp.c_fc.weight",
    ".mlp.c_proj.weight",
)
# What every GPT-2 has; another value is another architecture.
_FIXED = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_FEATURES = 64  # of a head, in all four sizes of GPT-2


def load_gpt2(
    path: str | os.PathLike[str],
    *,
    num_heads: int | None = None,
    dropout: float = 0.0,
    dtype: Any = None,
    device: str | Device | None = None,
) -> GPT:
    """Return a GPT with the weights of a file, whose shapes say its sizes.

    Parameters
    ----------
    path : path
        A folder with ``model.safetensors`` and, if there is one, ``config.json``; or the first.
    num_heads : int, optional
        None takes ``config.json``'s, or without that file as many as have 64 features.
    dropout : float, default 0.0
        For training it further.
    dtype : dtype, optional
        float32 (None) or float64; weights of 16 bits are widened.
    device : str or Device, optional
        Where the parameters live; None is the default device.

    Returns
    -------
    GPT

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        For a file of another architecture; names the keys.
    NotImplementedError
        For a ``config.json`` with an option that is not GPT-2's, and for weights in several files.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists() and (file.parent / f"{WEIGHTS}.index.json").exists():
        raise NotImplementedError(f"{file.parent}: weights in several files. Join them into one")
    config = _read_config(file.parent / CONFIG)
    state = _read_state(file)
    sizes = _sizes(state, file, config.get("n_head") if num_heads is None else num_heads)
    has_bias = "ln_f.bias" in state
    with placeholders():
        expected = {
            name: array.shape for name, array in GPT(*sizes, bias=has_bias).state_dict().items()
        }
    found = {name: array.shape for name, array in state.items()}
    if found != expected:
        wrong = sorted(
            name for name in found.keys() | expected if found.get(name) != expected.get(name)
        )
        raise ValueError(
            f"{file}: not the weights of a GPT-2 of {sizes[2]} blocks and {sizes[4]} features: "
            + ", ".join(
                f"{name} is {found.get(name)}, expected {expected.get(name)}" for name in wrong[:4]
            )
            + (f", and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        )
    model = GPT(*sizes, dropout, has_bias, dtype=dtype, device=device, rng=0)
    model.load_state_dict(state)
    return model


def save_gpt2(model: GPT, folder: str | os.PathLike[str]) -> None:
    """Write a GPT as Hugging Face's ``GPT2LMHeadModel`` reads it.

    Parameters
    ----------
    model : GPT
        With biases, which GPT-2 has.
    folder : path
        Gets ``model.safetensors`` and ``config.json``; made if it is not there.

    Raises
    ------
    ValueError
        For a model without biases.
    """
    state = model.state_dict()
    if "ln_f.bias" not in state:
        raise ValueError("save_gpt2 expects a GPT with biases, as GPT-2 has; got bias=False")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _PREFIX + name: np.ascontiguousarray(array.T) if name.endswith(_TRANSPOSED) else array
        for name, array in state.items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.context_length,
        "n_ctx": model.context_length,
        "n_embd": model.embed_dim,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        **_FIXED,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected an object; got {type(config).__name__}")
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise NotImplementedError(f"{path}: {name}={config[name]!r}; GPT-2 has {value!r}")
    return config


def _read_state(file: Path) -> dict[str, np.ndarray]:
    """Return a file's weights under our names and in our layout."""
    state = {
        name.removeprefix(_PREFIX): array
        for name, array in read_safetensors(file).items()
        if not name.endswith(_MASKS)
    }
    head = state.pop(_HEAD, None)
    if _EMBEDDING not in state or "wpe.weight" not in state:
        raise ValueError(
            f"{file}: not the weights of a GPT-2: it has no wte.weight and wpe.weight, but "
            f"{', '.join(sorted(state)[:4]) or 'nothing'}"
        )
    if head is not None and not np.array_equal(head, state[_EMBEDDING]):
        raise NotImplementedError(
            f"{file}: {_HEAD} differs from wte.weight; GPT-2 has one for both"
        )
    return {
        name: np.ascontiguousarray(array.T) if name.endswith(_TRANSPOSED) else array
        for name, array in state.items()
    }


def _sizes(
    state: dict[str, np.ndarray], file: Path, num_heads: int | None
) -> tuple[int, int, int, int, int]:
    """Return the first five arguments of GPT, from the shapes."""
    vocab_size, embed_dim = state[_EMBEDDING].shape
    context_length = state["wpe.weight"].shape[0]
    numbers = {name.split(".")[1] for name in state if name.startswith("h.")}
    if num_heads is None:
        if embed_dim % _FEATURES:
            raise ValueError(
                f"{file}: {embed_dim} features are not heads of {_FEATURES}, and there is no "
                f"{CONFIG} that says how many heads there are. Pass num_heads"
            )
        num_heads = embed_dim // _FEATURES
    return vocab_size, context_length, max(len(numbers), 1), num_heads, embed_dim
