"""What ``xbackprop train`` can be asked for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbackprop.cli.errors import CommandError
from xbackprop.cli.parser import (
    LineParser,
    column_names,
    layer_widths,
    number_from_zero,
    odd_number,
    one_of,
    positive_number,
    share,
    whole_number,
)
from xbackprop.cli.run_folder import read_config

ACTIVATIONS = ("relu", "sigmoid", "tanh")
LOSSES = ("cross-entropy", "mse", "half-squared-error", "bce-with-logits", "bce")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
ON_NAN = ("raise", "skip", "stop")
PRECISIONS = ("float32", "bfloat16", "float16", "tf32")
TASKS = ("classification", "regression")
PREPROCESS = ("columns", "none")
UNKNOWN = ("ignore", "error")
# CSV has two readings: numbers as they stand, and columns of all kinds.
_COLUMNS_ONLY = (".tsv", ".parquet", ".feather", ".arrow")
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
_ONLY_FOR = {
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
# What a resumed run may be asked for anew; everything else is as the run has it.
RESUMABLE = (
    "resume", "data", "epochs", "shards", "graph", "on_nan", "keep", "save_every", "save_steps",
    "device", "quiet", "detect_anomaly", "record_statistics", "tensorboard",
)  # fmt: skip

_EPILOG = """\
examples:
  xbackprop train
  xbackprop train flowers.csv --target species
  xbackprop train --hidden 64,32 --activation tanh --optimizer sgd --lr 0.1
  xbackprop train --data flowers.csv --target species --standardize
  xbackprop train --data houses.csv --target price --regression --standardize
  xbackprop train --data mnist-5k --model cnn
  xbackprop train --model gpt --data shakespeare
  xbackprop train --resume runs/digits

Ctrl-C ends the run after the current step and keeps what there is; a second one leaves at once.
--resume goes on with a run that was stopped or killed, bit by bit as if it had not been.
Exit code: 0; 1 when the run failed; 2 for a mistake in the request; 130 or 143 when it was stopped.
"""


@dataclass(frozen=True)
class TrainOptions:
    """A request for a training run; None leaves the choice to the program.

    Attributes
    ----------
    data : str
        A built-in set, or the path of a table or an NPZ file.
    target : str or None
        Column of a table; with ``preprocess`` also several, separated by commas.
    features : tuple of str or None
        Columns of a table; None takes all but the target.
    regression : bool
        The target is a quantity.
    task : str or None
        One of ``TASKS``; None finds out by the target with ``preprocess``.
    preprocess : str
        One of ``PREPROCESS``: scikit-learn's ColumnTransformer, or numbers as they stand.
    unknown : str or None
        One of ``UNKNOWN``: what a text does that the training part has not.
    standardize : bool
        Scale each feature, and the target of a regression.
    model : str
        One of ``MODELS``, which says what the other options are where nothing is said.
    hidden : tuple of int
        Widths of the hidden layers.
    channels : tuple of int
        Of each convolution of a ``cnn``; one number, of the first stage, for a ``resnet``.
    kernel_size : int or None
        Of a ``cnn``.
    dropout : float
        Share of the activations that are left out: after each hidden layer of an ``mlp``, before
        the last layer of a ``cnn``, everywhere in a ``gpt``.
    preset : str or None
        One of ``PRESETS``, which says the sizes of a ``gpt`` where nothing is said.
    layers, heads, width, context : int or None
        Blocks of a ``gpt``, its heads, features of a token, and tokens that it sees at a time.
    tokens : str or None
        One of ``TOKENS``.
    vocab_size : int or None
        Of ``bpe``.
    prompt : str or None
        What the texts that are printed meanwhile begin with; None is an empty line.
    sample_every : int or None
        Updates between two of those.
    activation, optimizer, schedule : str
        One of ``ACTIVATIONS``, ``OPTIMIZERS``, ``SCHEDULES``.
    loss : str or None
        One of ``LOSSES``.
    lr : float or None
        Learning rate.
    warmup : int or None
        Updates over which it rises; None leaves it to the model.
    weight_decay, clip_norm : float or None
        None is what the optimizer has, and no bound for the norm of the gradients.
    epochs, batch_size, accumulate, shards, seed : int
        As their names say; ``accumulate`` is batches per update, ``shards`` the parts of each batch
        that run in threads.
    graph : bool
        Record a step on the device and replay it.
    on_nan : str
        One of ``ON_NAN``.
    detect_anomaly : bool
        Name the op that makes the first NaN or infinity.
    record_statistics : int or None
        Updates between two looks at what happens in each layer.
    tensorboard : bool
        Write event files of TensorBoard.
    precision : str
        One of ``PRECISIONS``: what the network computes in.
    keep, save_every, save_steps : int, int, int or None
        Checkpoints kept, and epochs and steps between two of them.
    resume : str or None
        The folder of the run to go on with.
    device : str or None
        None is what ``XBACKPROP_DEVICE`` says.
    device_asked_by : str
        Who asked for ``device``, for messages.
    out : str or None
        The run folder.
    quiet : bool
        Print the result only.
    """

    data: str = "digits"
    target: str | None = None
    features: tuple[str, ...] | None = None
    regression: bool = False
    task: str | None = None
    preprocess: str = "none"
    unknown: str | None = None
    standardize: bool = False
    model: str = "mlp"
    hidden: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    kernel_size: int | None = None
    dropout: float = 0.0
    preset: str | None = None
    layers: int | None = None
    heads: int | None = None
    width: int | None = None
    context: int | None = None
    tokens: str | None = None
    vocab_size: int | None = None
    prompt: str | None = None
    sample_every: int | None = None
    activation: str = "relu"
    loss: str | None = None
    optimizer: str = "adam"
    lr: float | None = None
    schedule: str = "constant"
    warmup: int | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None
    epochs: int = 30
    batch_size: int = 16
    accumulate: int = 1
    shards: int = 1
    seed: int = 0
    graph: bool = False
    on_nan: str = "raise"
    detect_anomaly: bool = False
    record_statistics: int | None = None
    tensorboard: bool = False
    precision: str = "float32"
    keep: int = 2
    save_every: int = 1
    save_steps: int | None = None
    resume: str | None = None
    device: str | None = None
    device_asked_by: str = "--device"
    out: str | None = None
    quiet: bool = False


def read_options(arguments: Sequence[str]) -> TrainOptions:
    """Read the arguments of ``xbackprop train``.

    Parameters
    ----------
    arguments : sequence of str
        Without ``xbackprop train``.

    Returns
    -------
    TrainOptions

    Raises
    ------
    CommandError
        One line that lists what is valid.
    """
    given = vars(_make_parser().read(arguments))
    if given.get("table") is not None and "data" in given:
        raise CommandError(
            f"--data {given['data']}: the data is named already, {given['table']}. Leave one out"
        )
    table = given.pop("table", None)
    if table is not None:
        given["data"] = table
    if "resume" not in given:
        return _completed(_with_preprocessing(given, is_table=table is not None))
    refused = ["--" + name.replace("_", "-") for name in given if name not in RESUMABLE]
    if refused:
        allowed = ", ".join("--" + name.replace("_", "-") for name in RESUMABLE[1:])
        raise CommandError(
            f"--resume goes on with the run's own settings; leave out {', '.join(refused)}. "
            f"With --resume there may be {allowed}"
        )
    return saved_options(given)


def _with_preprocessing(given: dict[str, Any], *, is_table: bool) -> dict[str, Any]:
    """Say how the columns of a table become numbers, and what is asked of them."""
    suffix = Path(given.get("data", "")).suffix.lower()
    is_csv_table = is_table and suffix == ".csv"
    default = "columns" if suffix in _COLUMNS_ONLY or is_csv_table else "none"
    preprocess = given.get("preprocess", default)
    if preprocess == "columns" and suffix not in (".csv", *_COLUMNS_ONLY):
        raise CommandError(
            "--preprocess columns: expected a table (.csv, .tsv, .parquet, .feather, .arrow); "
            f"got {given.get('data', 'digits')}. Leave it out"
        )
    if preprocess == "none" and suffix in _COLUMNS_ONLY:
        raise CommandError(f"--preprocess none: reads .csv and .npz only; got {given['data']}")
    if preprocess == "columns" and given.get("standardize"):
        raise CommandError("--standardize: the columns of a table are standardized. Leave it out")
    if preprocess == "none" and "unknown" in given:
        raise CommandError("--unknown: is of columns of texts. Add --preprocess columns")
    task = given.get("task")
    if task == "classification" and given.get("regression"):
        raise CommandError("--task classification: --regression says the opposite. Leave one out")
    completed = {**given, "preprocess": preprocess} if preprocess != "none" else dict(given)
    if task == "regression":
        completed["regression"] = True
    elif given.get("regression"):
        completed["task"] = "regression"
    return completed


def has_meaning(option: str, model: str) -> bool:
    """Tell whether an option says something about a kind of network."""
    return model in _ONLY_FOR.get(option, MODELS)


def _completed(given: dict[str, Any]) -> TrainOptions:
    """Fill in what suits the kind of network, and refuse what means nothing for it."""
    model = given.get("model", "mlp")
    for name in given:
        if not has_meaning(name, model):
            raise CommandError(
                f"--{name.replace('_', '-')}: means nothing for --model {model}, only for "
                f"{' and '.join(_ONLY_FOR[name])}. Leave it out"
            )
    channels = given.get("channels", (1,))
    if not channels or (model == "resnet" and len(channels) != 1):
        expected = (
            "one number, the channels of its first stage, such as 16"
            if model == "resnet"
            else "at least one number, such as 16,32"
        )
        raise CommandError(f"--channels: a {model} takes {expected}")
    defaults = dict(MODELS[model])
    if given.get("optimizer", "adamw") != "adamw":  # of others it would be a part of the gradient
        defaults.pop("weight_decay", None)
    sizes = PRESETS[given.get("preset", "nano")] if model == "gpt" else {}
    return TrainOptions(**{**defaults, **sizes, **given})


def saved_options(given: dict[str, Any]) -> TrainOptions:
    """Return the request of an earlier run, with what was given anew in its place.

    Parameters
    ----------
    given : dict
        Options by name; ``resume`` is the run folder.

    Returns
    -------
    TrainOptions

    Raises
    ------
    CommandError
        When the folder holds no run that can be gone on with.
    """
    config = read_config(Path(given["resume"]))
    try:
        saved = _saved_arguments(config)
        asked_by = "--device" if "device" in given else "the run"
        if saved.get("schedule", "constant") != "constant" and given.get("epochs") not in (
            None,
            saved["epochs"],
        ):
            raise CommandError(
                f"--epochs: the learning rate of this run goes to 0 over its {saved['epochs']} "
                "epochs, and stays there. Leave --epochs out, or start a new run"
            )
        return TrainOptions(
            **{**saved, **given, "out": given["resume"], "device_asked_by": asked_by}
        )
    except (KeyError, TypeError) as error:
        raise CommandError(
            f"--resume: {given['resume']}: config.json does not describe a run of this version "
            f"({error})"
        ) from error


def options_of_run(folder: Path, config: dict[str, Any], asked_by: str) -> TrainOptions:
    """Return the request of a run as it was.

    Parameters
    ----------
    folder : Path
        The run folder, for messages.
    config : dict
        What it says.
    asked_by : str
        The option that named it, for messages.

    Returns
    -------
    TrainOptions

    Raises
    ------
    CommandError
        When the folder does not describe a run of this version.
    """
    try:
        return TrainOptions(**_saved_arguments(config))
    except (KeyError, TypeError) as error:
        raise CommandError(
            f"{asked_by}: {folder}: config.json does not describe a run of this version ({error})"
        ) from error


def _saved_arguments(config: dict[str, Any]) -> dict[str, Any]:
    saved = {"seed": config["seed"], **config["arguments"]}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}


def _make_parser() -> LineParser:
    default = TrainOptions()
    parser = LineParser(
        "xbackprop train",
        "Train a network: on the UCI handwritten digits that come with the package, on 5,000 of\n"
        "MNIST's, on plays of Shakespeare, or on a table or text of yours. Writes a run folder\n"
        "with the model, its settings, its metrics, plots, and checkpoints to go on from.",
        _EPILOG,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "table", nargs="?", metavar="DATA",
        help="a table: .csv, .tsv, .parquet, .feather or .arrow, of numbers and texts, prepared\n"
        "by scikit-learn (extra data); or what --data takes",
    )  # fmt: skip
    data.add_argument(
        "--data", metavar="DATA",
        help="digits (default), mnist-5k, a .csv file of numbers as they are, an .npz file\n"
        "with X, y; for a gpt: shakespeare (its default), or a .txt file",
    )  # fmt: skip
    data.add_argument(
        "--target", metavar="COLUMN",
        help="what to predict; required for a table; several quantities as A,B",
    )  # fmt: skip
    data.add_argument(
        "--features", type=column_names, metavar="A,B",
        help="the columns of a table to predict it from (default: all others)",
    )  # fmt: skip
    data.add_argument(
        "--regression", action="store_true", help="the target is a quantity, not a class"
    )
    data.add_argument(
        "--task", type=one_of(TASKS), metavar="NAME",
        help=f"{' or '.join(TASKS)} (default: found out by the target)",
    )  # fmt: skip
    data.add_argument(
        "--preprocess", type=one_of(PREPROCESS), metavar="NAME",
        help="columns: fill in what is missing, scale numbers, one column for each text; none:\n"
        "numbers as they are (default: columns, but none for --data FILE.csv)",
    )  # fmt: skip
    data.add_argument(
        "--unknown", type=one_of(UNKNOWN), metavar="NAME",
        help="a text that the training part has not: ignore (zeros, with a note; default) or error",
    )  # fmt: skip
    data.add_argument(
        "--standardize", action="store_true",
        help="bring each feature, and the target of a regression, to mean 0 and deviation 1",
    )  # fmt: skip
    network = parser.add_argument_group("network and training")
    network.add_argument(
        "--model", type=one_of(tuple(MODELS)), metavar="NAME",
        help="mlp (fully connected layers; default), cnn or resnet (convolutions, for images), or\n"
        "gpt (a transformer, for texts)",
    )  # fmt: skip
    network.add_argument(
        "--hidden", type=layer_widths, metavar="64,32",
        help="widths of the hidden layers, or none (default: 256; none for cnn)",
    )  # fmt: skip
    network.add_argument(
        "--channels", type=layer_widths, metavar="16,32",
        help="channels of each convolution of a cnn, with normalization and pooling after it\n"
        f"(default: {_listed('cnn', 'channels')}), or of the first stage of a resnet of 18 layers\n"
        f"(default: {_listed('resnet', 'channels')})",
    )  # fmt: skip
    network.add_argument(
        "--kernel-size", type=odd_number, metavar="N",
        help=f"of a cnn's convolutions, odd (default: {_listed('cnn', 'kernel_size')})",
    )  # fmt: skip
    network.add_argument(
        "--dropout", type=share, metavar="P",
        help="share of activations left out while training: after each hidden layer of an mlp\n"
        f"(default: 0), before the last layer of a cnn (default: {_listed('cnn', 'dropout')}),\n"
        "everywhere in a gpt (default: the preset's; nano 0)",
    )  # fmt: skip
    network.add_argument(
        "--activation", type=one_of(ACTIVATIONS), metavar="NAME",
        help=f"after each hidden layer: {', '.join(ACTIVATIONS)} (default: relu)",
    )  # fmt: skip
    network.add_argument(
        "--loss", type=one_of(LOSSES), metavar="NAME",
        help=f"{', '.join(LOSSES)} (default: cross-entropy; for a quantity mse)",
    )  # fmt: skip
    network.add_argument(
        "--optimizer", type=one_of(OPTIMIZERS), metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adam; adamw for a gpt)",
    )  # fmt: skip
    network.add_argument(
        "--lr", type=positive_number, metavar="RATE",
        help="learning rate (default: 0.002; for sgd one that suits the loss; 0.001 for a gpt)",
    )  # fmt: skip
    network.add_argument(
        "--schedule", type=one_of(SCHEDULES), metavar="NAME",
        help="of the learning rate: constant, or cosine, to 0 at the end of the run (default:\n"
        "constant for mlp, cosine for the others)",
    )  # fmt: skip
    network.add_argument(
        "--warmup", type=whole_number(0), metavar="N",
        help="updates over which the learning rate rises at first (default: 0; gpt 100)",
    )  # fmt: skip
    network.add_argument(
        "--weight-decay", type=number_from_zero, metavar="X",
        help="of the optimizer (default: adamw 0.01, others 0; gpt 0.1, of its matrices only)",
    )  # fmt: skip
    network.add_argument(
        "--clip-norm", type=positive_number, metavar="X",
        help="largest norm of all gradients together (default: none; gpt 1)",
    )  # fmt: skip
    network.add_argument(
        "--epochs", type=whole_number(1), metavar="N",
        help=f"how often to go through the data (default: {_defaults('epochs')})",
    )  # fmt: skip
    network.add_argument(
        "--batch-size", type=whole_number(1), metavar="N",
        help=f"samples per step (default: {_defaults('batch_size')})",
    )  # fmt: skip
    network.add_argument(
        "--accumulate", type=whole_number(1), metavar="N",
        help="batches per update: as large a batch as if it fitted into memory (default: 1)",
    )  # fmt: skip
    network.add_argument(
        "--shards", type=whole_number(1), metavar="N",
        help="parts of each batch, at once in threads of the CPU (default: 1; needs extra fast);\n"
        "the same N gives the same bits, whatever the threads; for mlp and gpt",
    )  # fmt: skip
    network.add_argument(
        "--graph", action="store_true",
        help="record a step on the GPU and replay it, without Python in between; the same numbers",
    )  # fmt: skip
    network.add_argument(
        "--on-nan", type=one_of(ON_NAN), metavar="NAME",
        help="when a loss or gradient is NaN or infinite: raise (fail; default), skip (leave that\n"
        "update out), stop (end in good order); the weights are never touched by it",
    )  # fmt: skip
    network.add_argument(
        "--detect-anomaly", action="store_true",
        help="fail at the first NaN or infinity, and name op, layer and step that made it;\n"
        "slower: every op's result is looked at",
    )  # fmt: skip
    network.add_argument(
        "--seed", type=whole_number(0), metavar="N",
        help=f"of the initial weights and the order of the samples (default: {default.seed}); "
        "the same seed gives the same numbers",
    )  # fmt: skip
    _add_text_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument(
        "--device", metavar="NAME",
        help="auto, cpu, cuda, cuda:N, fake, fake:N (default: what XBACKPROP_DEVICE says, or auto)",
    )  # fmt: skip
    run.add_argument(
        "--precision", type=one_of(PRECISIONS), metavar="NAME",
        help="float32 (default), bfloat16, float16 (with loss scaling), or tf32 (on GPUs)",
    )  # fmt: skip
    run.add_argument(
        "--out", metavar="FOLDER",
        help="the run folder (default: runs/ and the name of the data, numbered when taken)",
    )  # fmt: skip
    run.add_argument(
        "--resume", metavar="FOLDER",
        help="go on with the run of this folder; --epochs N makes it longer where the learning\n"
        "rate is constant, --data FILE says where its file is now",
    )  # fmt: skip
    run.add_argument(
        "--keep", type=whole_number(1), metavar="K",
        help=f"checkpoints to keep, beside the best one (default: {default.keep})",
    )  # fmt: skip
    run.add_argument(
        "--save-every", type=whole_number(1), metavar="N",
        help=f"epochs between checkpoints (default: {default.save_every})",
    )  # fmt: skip
    run.add_argument(
        "--save-steps", type=whole_number(1), metavar="N",
        help="write one every N steps as well (default: at the ends of epochs only)",
    )  # fmt: skip
    _add_records(run)
    run.add_argument("--quiet", action="store_true", help="print the result only")
    return parser


def _add_records(run: argparse._ArgumentGroup) -> None:
    run.add_argument(
        "--record-statistics", type=whole_number(1), nargs="?", const=RECORD_EVERY, metavar="N",
        help="keep norms and histograms of every layer's outputs, gradients and updates, at the\n"
        f"first update and every N-th (N left out: {RECORD_EVERY}), and what each epoch moves to\n"
        "a device and back, for `xbackprop report` (default: nothing is kept)",
    )  # fmt: skip
    run.add_argument(
        "--tensorboard", action="store_true",
        help="write event files of TensorBoard into the run folder (extra tensorboard): losses,\n"
        "accuracies, the learning rate, and what --record-statistics keeps",
    )  # fmt: skip


def _add_text_options(parser: LineParser) -> None:
    text = parser.add_argument_group("texts (--model gpt)")
    text.add_argument(
        "--preset", type=one_of(tuple(PRESETS)), metavar="NAME",
        help=f"sizes of the network: {', '.join(PRESETS)} (default: nano)",
    )  # fmt: skip
    for name, what in (
        ("layers", "blocks"),
        ("heads", "heads of attention, which divide the width"),
        ("width", "features of a token"),
        ("context", "tokens that it sees at a time"),
    ):
        text.add_argument(
            f"--{name}", type=whole_number(1), metavar="N",
            help=f"{what} (default: the preset's; nano {PRESETS['nano'][name]})",
        )  # fmt: skip
    text.add_argument(
        "--tokens", type=one_of(TOKENS), metavar="NAME",
        help="char, one for each character (default), or bpe, byte pairs that are often together",
    )  # fmt: skip
    text.add_argument(
        "--vocab-size", type=whole_number(256), metavar="N", help="of bpe (default: 512)"
    )
    text.add_argument(
        "--sample-every", type=whole_number(1), metavar="N",
        help="updates between texts that are printed (default: 500)",
    )  # fmt: skip
    text.add_argument(
        "--prompt", metavar="TEXT", help="what these texts begin with (default: an empty line)"
    )


def _listed(model: str, option: str) -> str:
    value = MODELS[model][option]
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _defaults(option: str) -> str:
    return "; ".join(f"{model} {settings[option]}" for model, settings in MODELS.items())
