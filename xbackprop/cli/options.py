"""What ``xbackprop train`` was asked for: by its arguments, or by an earlier run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbackprop.cli.choices import MODELS, ONLY_FOR, PRESETS, has_meaning
from xbackprop.cli.errors import CommandError
from xbackprop.cli.run_folder import read_config
from xbackprop.cli.train_parser import make_parser

# CSV has two readings: numbers as they stand, and columns of all kinds.
_COLUMNS_ONLY = (".tsv", ".parquet", ".feather", ".arrow")
# What a resumed run may be asked for anew; everything else is as the run has it.
RESUMABLE = (
    "resume", "data", "epochs", "shards", "graph", "on_nan", "keep", "save_every", "save_steps",
    "device", "quiet", "detect_anomaly", "record_statistics", "tensorboard",
)  # fmt: skip


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
    given = vars(make_parser(TrainOptions()).read(arguments))
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


def _completed(given: dict[str, Any]) -> TrainOptions:
    """Fill in what suits the kind of network, and refuse what means nothing for it."""
    model = given.get("model", "mlp")
    for name in given:
        if not has_meaning(name, model):
            raise CommandError(
                f"--{name.replace('_', '-')}: means nothing for --model {model}, only for "
                f"{' and '.join(ONLY_FOR[name])}. Leave it out"
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
