"""``xbackprop gradcheck``: every layer's backward against central differences."""

import json

from xbackprop.backend.device import use_device
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import FAILED
from xbackprop.cli.gradcheck_options import GradcheckOptions
from xbackprop.cli.model_argument import read_model
from xbackprop.testing import LayerGradients, check_network

_TOKENS = 6  # of a sequence: enough for every place to differ, and few enough for differences


def run_gradcheck(options: GradcheckOptions) -> int:
    """Print a line for each layer.

    Parameters
    ----------
    options : GradcheckOptions
        The request.

    Returns
    -------
    int
        Exit code: 0, or 1 when a gradient is wrong.

    Raises
    ------
    CommandError
        For a MODEL or a device that cannot be had.
    """
    choice = choose_device(options.device or "cpu")
    given = read_model(
        options.model, batch=options.batch, length=_TOKENS, shape=options.shape, seed=options.seed
    )
    say = None if options.json else _say
    with use_device(choice.device):
        layers = check_network(
            given.model.train(not options.eval),
            *given.inputs,
            rng=options.seed,
            device=choice.device,
            on_layer=say,
        )
    wrong = [layer for layer in layers if layer.problem]
    if options.json:
        print(json.dumps(_as_plain(layers), indent=2))
    else:
        print(_summary(layers, wrong))
    return FAILED if wrong else 0


def _say(layer: LayerGradients) -> None:
    print(layer_line(layer), flush=True)


def layer_line(layer: LayerGradients) -> str:
    """Return what there is to say of a layer.

    Parameters
    ----------
    layer : LayerGradients
        Checked.

    Returns
    -------
    str
    """
    name = f"{layer.path or '(network)'} {layer.kind}"
    if layer.wrong_inside is not None:
        return f"  -    {name:44} not judged: {layer.wrong_inside} inside it is wrong"
    if layer.problem:
        return f"WRONG  {name:44} {layer.worst:8.1e}  {layer.problem}"
    if not layer.arrays:
        return f"  -    {name:44} nothing to differentiate"
    worst = f"{layer.worst:8.1e}  {layer.worst_subject}" if layer.worst else f"{0.0:8.1e}"
    kinks = f"; {layer.kinks} left out at kinks" if layer.kinks else ""
    return f"ok     {name:44} {worst}{kinks}"


def _summary(layers: list[LayerGradients], wrong: list[LayerGradients]) -> str:
    if wrong:
        names = ", ".join(layer.path or "(network)" for layer in wrong)
        return f"\n{len(wrong)} of {len(layers)} layers have a wrong gradient: {names}"
    arrays = sum(layer.arrays for layer in layers)
    return f"\n{len(layers)} layers, {arrays} gradients of inputs and parameters: all right"


def _as_plain(layers: list[LayerGradients]) -> dict[str, object]:
    """Return plain data; JSON has no infinity, so a layer that broke off has no worst error."""
    rows = [layer.as_dict() for layer in layers]
    for row in rows:
        row["worst"] = row["worst"] if row["worst"] < float("inf") else None
    return {"layers": rows, "wrong": [layer.path for layer in layers if layer.problem]}
