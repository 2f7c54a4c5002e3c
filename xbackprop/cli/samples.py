"""Texts that a language model writes while it is trained."""

from typing import Any

import numpy as np

from xbackprop.cli.datasets import TextSplit
from xbackprop.cli.run import Run
from xbackprop.data.tokenizers import Tokenizer

_LENGTH, _TEMPERATURE = 160, 0.8


def is_sample_due(run: Run) -> bool:
    """Tell whether a text is to be shown after the update that was just made."""
    every = run.options.sample_every
    if not every or not isinstance(run.split, TextSplit):
        return False
    return run.trainer.steps % every == 0 and run.trainer.stepper.group.batches == 0


def sample_lines(run: Run) -> list[str]:
    """Return a text of the model in lines; the training does not notice.

    Parameters
    ----------
    run : Run
        Of a language model.

    Returns
    -------
    list of str
        A heading first.
    """
    model: Any = run.trainer.model
    split: Any = run.split
    ids = encode_prompt(split.tokenizer, run.options.prompt)
    # A stream of its own: the order of the data must not depend on what is shown.
    rng = np.random.default_rng([run.options.seed, run.trainer.steps])
    try:
        drawn = list(model.generate(ids, _LENGTH, temperature=_TEMPERATURE, rng=rng))
    except ValueError as error:  # NaN: the next step finds it too, and says what to do
        return [f"step {run.trainer.steps} writes nothing: {error}"]
    text = split.tokenizer.decode([*ids, *drawn]).strip("\n")
    heading = f"step {run.trainer.steps} writes"
    return [heading, *(f"  | {line}" for line in text.splitlines())]


def encode_prompt(tokenizer: Tokenizer, prompt: str | None) -> np.ndarray:
    """Return the tokens of a prompt; None is an empty line, or the first token where there is none.

    Parameters
    ----------
    tokenizer : Tokenizer
        Of the model.
    prompt : str or None
        What a text begins with.

    Returns
    -------
    numpy.ndarray of int64

    Raises
    ------
    ValueError
        For a prompt that the tokenizer does not know.
    """
    try:
        return tokenizer.encode("\n" if prompt is None else prompt)
    except ValueError:
        if prompt is None:
            return np.zeros(1, dtype=np.int64)
        raise
