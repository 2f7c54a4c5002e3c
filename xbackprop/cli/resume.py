"""Going on with a run: its folder, its data, and the newest checkpoint that is whole."""

from pathlib import Path
from typing import Any

from xbackprop.backend.device import DeviceChoice
from xbackprop.cli.datasets import find_change
from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.options import TrainOptions
from xbackprop.cli.run import Run, build_run, make_config
from xbackprop.cli.run_folder import read_config, write_config
from xbackprop.data import Split
from xbackprop.training import CheckpointError
from xbackprop.training.atomic import remove_leftovers


def resume_run(options: TrainOptions, choice: DeviceChoice, split: Split) -> tuple[Run, list[str]]:
    """Set up a run that goes on, on the default device.

    Parameters
    ----------
    options : TrainOptions
        The request of the run, as :func:`xbackprop.cli.options.saved_options` returns it.
    choice : DeviceChoice
        The default device, and why it is.
    split : Split
        The data.

    Returns
    -------
    run : Run
    remarks : list of str
        Lines about where it goes on.

    Raises
    ------
    CommandError
        When data or checkpoints are not those of the run.
    """
    folder = Path(options.resume or "")
    config = read_config(folder)
    remove_leftovers(folder)
    run = build_run(options, choice, split, lambda: folder)
    new_config = make_config(run)
    _check_data(config.get("data"), new_config["data"], options.data)
    try:
        path, damaged = run.checkpoints.resume(run.trainer)
    except CheckpointError as error:
        raise CommandError(f"--resume: {error}", FAILED) from error
    if options.epochs < run.trainer.epochs:
        raise CommandError(
            f"--epochs {options.epochs}: the run has done {run.trainer.epochs} epochs already"
        )
    remarks = [f"damaged   {error}" for error in damaged]
    remarks += _compare_versions(config.get("versions"), new_config["versions"])
    where = "from the beginning: no checkpoint had been written"
    if path is not None:
        where = f"from {path}, after step {run.trainer.steps}, epoch {run.trainer.epochs}"
    write_config(folder, new_config)
    return run, [*remarks, f"resumed   {where}"]


def _check_data(saved: Any, here: dict[str, Any], path: str) -> None:
    if not isinstance(saved, dict):
        raise CommandError("--resume: config.json does not say which data the run has")
    changed = find_change(saved, here)
    if changed:
        raise CommandError(
            f"--resume: {path} is not the data of this run, or has changed: {changed}. "
            "--data FILE says where they are now"
        )


def _compare_versions(saved: Any, here: dict[str, str]) -> list[str]:
    """Return a remark when other versions compute, whose last bits may differ."""
    if not isinstance(saved, dict):
        return []
    changed = [
        f"{name} {saved.get(name)} then, {version} now"
        for name, version in here.items()
        if saved.get(name) != version
    ]
    return [f"versions  {'; '.join(changed)}: the last bits may differ"] if changed else []
