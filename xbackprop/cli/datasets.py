"""The data of a run, from the options that name it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xbackprop.cli.errors import CommandError
from xbackprop.cli.options import TrainOptions
from xbackprop.data import DataError, Split, load_corpus, load_dataset
from xbackprop.data.builtin import BUILTIN_NAMES
from xbackprop.data.columns import TableSplit, load_columns
from xbackprop.data.text import TEXT_EXTENSIONS, TEXT_NAMES
from xbackprop.data.tokenizers import Tokenizer

NAMES = (*BUILTIN_NAMES, *TEXT_NAMES)

# What the data functions advise in terms of their arguments, in terms of ours.
_WORDS = (
    ("Pass stratify=False, or regression=True if", "Leave that row out, or pass --regression if"),
    ("Pass regression=True if", "Pass --regression if"),
    (
        "Encode it as a number or leave the column out with features",
        "Encode it as a number, leave the column out with --features, or pass --preprocess columns",
    ),
    ("eave the column out with features", "eave the column out with --features"),
    ("or list features", "or name the columns to use with --features"),
    ("is the target? Name one of", "is the target? Pass --target with one of"),
    ("stratify=True expects", "the split into two parts expects"),
    ("test samples. Change test_size.", "test samples. Add rows."),
    (
        "vocab_size is of byte pairs: leave it out, or choose tokens='bpe'.",
        "--vocab-size is of byte pairs: leave it out, or choose --tokens bpe",
    ),
    ("does not fit context_length=", "does not fit --context "),
    (
        "Expected a .csv or .npz file",
        "Expected a .csv, .tsv, .parquet, .feather, .arrow or .npz file",
    ),
    (" is the target and a feature as well", " is given by --target and by --features as well"),
)


@dataclass(frozen=True, eq=False, repr=False)
class TextSplit(Split):
    """A text in windows, ``x`` of token ids and ``y`` of the ids that follow them.

    Parameters
    ----------
    x_train, y_train, x_test, y_test, classes, feature_names, name
        As for :class:`xbackprop.data.Split`; there are no classes.
    tokenizer : Tokenizer
        Between text and ids.
    """

    tokenizer: Tokenizer


def load_split(options: TrainOptions) -> Split:
    """Load the data of a run.

    Parameters
    ----------
    options : TrainOptions
        Names the data.

    Returns
    -------
    Split

    Raises
    ------
    CommandError
        Whatever is wrong with the file, with its name, line and column.
    """
    is_text = options.data in TEXT_NAMES or Path(options.data).suffix.lower() in TEXT_EXTENSIONS
    if is_text and options.model != "gpt":
        raise CommandError(f"--data {options.data}: is a text. Add --model gpt")
    _refuse_columns(options)
    takes_images = options.model in ("cnn", "resnet")
    try:
        if options.model == "gpt":
            return _load_text(options)
        if options.preprocess == "columns":
            return load_columns(
                options.data,
                target=options.target,
                features=options.features,
                task=options.task,
                unknown=options.unknown or "ignore",
            )
        split = load_dataset(
            options.data,
            target=options.target,
            features=None if options.features is None else list(options.features),
            regression=options.regression,
            flatten=not takes_images,
        )
        return _as_images(split, options) if takes_images else split
    except DataError as error:
        raise CommandError(f"--data: {in_our_words(error)}") from error
    except OSError as error:  # a name too long, a folder that may not be read
        reason = error.strerror or error
        raise CommandError(f"--data: {options.data}: cannot be read ({reason})") from error


def in_our_words(error: DataError) -> str:
    """Return what is wrong with a file, in terms of our options."""
    message = str(error)
    for words, ours in _WORDS:
        message = message.replace(words, ours)
    return message


def in_words_of_a_model(error: DataError) -> str:
    """Return what is wrong with a file that a trained model reads: its columns are chosen."""
    message = str(error)
    return message.replace("Convert it, or leave the column out with features.", "Convert it.")


def _load_text(options: TrainOptions) -> TextSplit:
    corpus = load_corpus(
        options.data,
        tokens=options.tokens or "char",
        vocab_size=options.vocab_size,
        context_length=options.context or 1,
    )
    if options.prompt is not None:
        try:
            is_empty = not len(corpus.tokenizer.encode(options.prompt))
        except ValueError as error:
            raise CommandError(f"--prompt: {error}") from error
        if is_empty:
            raise CommandError("--prompt: expected a text; got an empty one. Leave it out")
    parts = (corpus.x_train, corpus.y_train, corpus.x_test, corpus.y_test)
    return TextSplit(*parts, None, (), corpus.name, corpus.tokenizer)


def _as_images(split: Split, options: TrainOptions) -> Split:
    """Return samples with an axis of channels; refuse what has no height and width."""
    axes = split.x_train.ndim
    if axes == 3:
        return replace(split, x_train=split.x_train[:, None], x_test=split.x_test[:, None])
    if axes == 4:
        return split
    raise CommandError(
        f"--model {options.model} expects images, of shape (samples, height, width) or (samples, "
        f"channels, height, width); {options.data} has {describe_sample(split)}. Use --model mlp"
    )


def _refuse_columns(options: TrainOptions) -> None:
    """Refuse options that mean nothing for this kind of data."""
    is_builtin = options.data in NAMES
    if not is_builtin and Path(options.data).suffix.lower() != ".npz":
        return
    what = f"the built-in {options.data}" if is_builtin else options.data
    given = [
        name
        for name, value in (("--target", options.target), ("--features", options.features))
        if value is not None
    ]
    if given:
        raise CommandError(
            f"{', '.join(given)}: names columns of a .csv file, and {what} has none. Leave it out"
        )
    if is_builtin and options.regression:
        raise CommandError(f"--regression: {what} are classes, not quantities. Leave it out")


def describe_split(split: Split) -> str:
    """Return a data set in a line."""
    if isinstance(split, TextSplit):
        counts = f"{split.y_train.size:,} training and {split.y_test.size:,} test tokens"
        return f"{split.name}: {counts}, {split.tokenizer.vocab_size} different ones"
    kind = (
        f"{split.y_train.shape[1]} target{'s' * (split.y_train.shape[1] > 1)}"
        if split.num_classes is None
        else f"{split.num_classes} classes"
    )
    parts = f"{len(split.x_train)} training and {len(split.x_test)} test samples"
    return f"{split.name}: {parts}, {describe_sample(split)}, {kind}"


def describe_sample(split: Split) -> str:
    """Return the shape of a sample in words."""
    shape = split.x_train.shape[1:]
    return (
        f"{shape[0]} feature{'s' * (shape[0] != 1)}"
        if len(shape) == 1
        else "shape " + " x ".join(map(str, shape))
    )


def data_config(split: Split, path: str) -> dict[str, Any]:
    """Return what identifies a data set, as plain data; a file by the SHA-256 of its bytes.

    Parameters
    ----------
    split : Split
        The data.
    path : str
        Its name or file.

    Returns
    -------
    dict
    """
    about_file: dict[str, Any] = {}
    if path not in NAMES:
        with open(path, "rb") as file:
            about_file["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        about_file["feature_names"] = list(split.feature_names)
    if isinstance(split, TableSplit):
        about_file["preprocessing"] = split.preprocessing.config()
    return {
        "name": split.name,
        "training_samples": len(split.x_train),
        "test_samples": len(split.x_test),
        "sample_shape": list(split.x_train.shape[1:]),
        "classes": None if split.classes is None else list(split.classes),
        **about_file,
    }


def find_change(saved: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Return what tells two data sets apart in words; None where they are the same.

    Parameters
    ----------
    saved, here : dict
        What :func:`data_config` returned. A file may have moved, so its name does not count; its
        bytes do.

    Returns
    -------
    str or None
    """
    for key in ("training_samples", "test_samples", "sample_shape", "classes", "sha256"):
        if saved.get(key) != here.get(key):
            return f"{key} was {saved.get(key)}, and is {here.get(key)}"
    return None
