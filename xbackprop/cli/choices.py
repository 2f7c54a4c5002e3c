"""What the options of ``xbackprop train`` may say, and what they say for each network."""

from typing import Any

ACTIVATIONS = ("relu", "sigmoid", "tanh")
LOSSES = ("cross-entropy", "mse", "half-squared-error", "bce-with-logits", "bce")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
ON_NAN = ("raise", "skip", "stop")
PRECISIONS = ("float32", "bfloat16", "float16", "tf32")
TASKS = ("classification", "regression")
PREPROCESS = ("columns", "none")
UNKNOWN = ("ignore", "error")
# What each kind of network is trained with where nothing is said.
MODELS: dict[str, dict[str, Any]] = {
    # With 256 hidden units, products of 16 rows are done by one thread of NumPy's OpenBLAS: threads
    # that wait for each other cost more than they save, above all on a busy machine.
    "mlp": {"hidden": (256,), "epochs": 30, "batch_size": 16},
    "cnn": {
        "channels": (16, 32, 64), "kernel_size": 5, "dropout": 0.5,
        "epochs": 12, "batch_size": 32, "schedule": "cosine",
    },
    "resnet": {"channels": (16,), "epochs": 8, "batch_size": 32, "schedule": "cosine"},
    "gpt": {
        "data": "shakespeare", "preset": "nano", "tokens": "char",
        "epochs": 3, "batch_size": 8, "schedule": "cosine",
        "optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 1.0, "sample_every": 500,
    },
}  # fmt: skip
# Sizes of a GPT; micro is for a GPU, gpt2 is the smallest of the published ones.
PRESETS: dict[str, dict[str, Any]] = {
    "nano": {"layers": 4, "heads": 4, "width": 128, "context": 128},
    "micro": {"layers": 6, "heads": 6, "width": 384, "context": 256, "dropout": 0.2},
    "gpt2": {"layers": 12, "heads": 12, "width": 768, "context": 1024},
}
TOKENS = ("char", "bpe")
RECORD_EVERY = 50  # updates, where --record-statistics names no number
WARMUP = 100  # updates of a gpt, in a run of ten times as many or more
_TABLES = ("mlp", "cnn", "resnet")
# Options that mean something for some networks only.
ONLY_FOR = {
    "hidden": ("mlp", "cnn"),
    "activation": ("mlp", "cnn"),
    "dropout": ("mlp", "cnn", "gpt"),
    "channels": ("cnn", "resnet"),
    "kernel_size": ("cnn",),
    **dict.fromkeys(("target", "features", "regression", "standardize", "loss"), _TABLES),
    **dict.fromkeys(("task", "preprocess", "unknown"), _TABLES),
    **dict.fromkeys(
        (
            "preset", "tokens", "vocab_size", "layers", "heads", "width", "context", "prompt",
            "sample_every",
        ),
        ("gpt",),
    ),
}  # fmt: skip


def has_meaning(option: str, model: str) -> bool:
    """Tell whether an option says something about a kind of network."""
    return model in ONLY_FOR.get(option, MODELS)
