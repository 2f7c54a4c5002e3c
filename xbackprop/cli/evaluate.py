"""``xbackprop evaluate``: how good a trained model is on a table."""

import json

import numpy as np

from xbackprop.backend.device import use_device
from xbackprop.cli.datasets import in_words_of_a_model
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.scores import classification_scores, regression_scores, scores_text
from xbackprop.cli.trained import load_trained, read_table, read_target
from xbackprop.cli.use_options import UseOptions
from xbackprop.data import DataError


def run_evaluate(options: UseOptions) -> int:
    """Print how good a model is.

    Parameters
    ----------
    options : UseOptions
        The request.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    CommandError
        For a model or table that cannot be used.
    """
    choice = choose_device(options.device)
    with use_device(choice.device):
        trained = load_trained(options.model)
        try:
            table = read_table(trained, options.data, needs_target=True)
            y = read_target(trained, table)
            outputs = trained.outputs(table.x)
            if trained.classes is None:
                names = trained.targets or tuple(f"y{i}" for i in range(outputs.shape[1]))
                scores = regression_scores(y, outputs, names)
            else:
                predicted = np.asarray(trained.task.decode(outputs))
                probabilities = trained.probabilities(outputs)
                scores = classification_scores(y, predicted, probabilities, trained.classes)
        except DataError as error:
            raise CommandError(in_words_of_a_model(error)) from error
    if options.json:
        print(json.dumps({**scores, "notes": table.notes}, indent=2, allow_nan=False))
    else:
        print("\n".join([*(f"note: {note}" for note in table.notes), scores_text(scores)]))
    return 0
