"""Texts that a language model writes while it is trained."""

from typing import Any

import numpy as np

from xbackprop.cli.datasets import TextSplit
from xbackprop.cli.run import Run

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
    prompt = run.options.prompt or "\n"
    # A stream of its own: the order of the data must not depend on what is shown.
    rng = np.random.default_rng([run.options.seed, run.trainer.steps])
    ids = split.tokenizer.encode(prompt)
    drawn = model.generate(ids, _LENGTH, temperature=_TEMPERATURE, rng=rng)
    text = split.tokenizer.decode([*ids, *drawn]).strip("\n")
    heading = f"step {run.trainer.steps} writes"
    return [heading, *(f"  | {line}" for line in text.splitlines())]
