"""``xbackprop train``: trains, keeps what there is however it ends, and says how it went."""

import contextlib
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbackprop.backend.device import use_device
from xbackprop.cli.datasets import TextSplit, load_split
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.events import require_tensorboard
from xbackprop.cli.interrupts import StopRequest, catch_signals
from xbackprop.cli.options import TrainOptions
from xbackprop.cli.pictures import draw_run
from xbackprop.cli.records import Records
from xbackprop.cli.results import result_text
from xbackprop.cli.resume import resume_run
from xbackprop.cli.run import Run, describe_run, prepare_run
from xbackprop.cli.run_folder import (
    MODEL,
    RUN_FILES,
    MetricsFile,
    locked,
    missing_folders,
    take_back,
    writing,
)
from xbackprop.cli.samples import is_sample_due, sample_lines
from xbackprop.observe import AnomalyError, detect_anomaly
from xbackprop.training import EpochMetrics, NonFiniteError, save
from xbackprop.training.progress import show_progress

_NOT_WATCHED: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


@dataclass
class Outcome:
    """How the training ended.

    Attributes
    ----------
    seconds : float
        What it took.
    failure : str or None
        Why it could not go on.
    output_error : OSError or None
        What standard output said to the text; as a rule, that nobody reads it any more.
    """

    seconds: float = 0.0
    failure: str | None = None
    output_error: OSError | None = None


def train(options: TrainOptions) -> int:
    """Carry out a training run.

    Parameters
    ----------
    options : TrainOptions
        The request.

    Returns
    -------
    int
        Exit code: 0, or 130 or 143 when stopped by Ctrl-C or SIGTERM.

    Raises
    ------
    CommandError
        When the request makes no sense, and when the run fails.
    OSError
        When standard output cannot be written.
    """
    if options.tensorboard:
        require_tensorboard()
    choice = choose_device(options.device, options.device_asked_by)
    remarks: list[str] = []
    with contextlib.ExitStack() as stack:
        if options.resume is not None:
            stack.enter_context(locked(Path(options.resume)))
        split = load_split(options)
        # From here on there may be something to keep; until here a signal ends all at once.
        stop = stack.enter_context(catch_signals())
        stack.enter_context(use_device(choice.device))
        if options.resume is None:
            made = missing_folders(options.out)
            run = prepare_run(options, choice, split)
            stack.enter_context(locked(run.folder))
        else:
            run, remarks = resume_run(options, choice, split)
        try:
            _say(run, *describe_run(run), *remarks)
        except OSError:
            if options.resume is None:
                take_back(run.folder, made if options.out else [run.folder, *made])
            raise
        try:
            outcome = _fit(run, stop)
            _save_model(run, outcome)
            remark = draw_run(run)
        except KeyboardInterrupt:
            reason = f"left at once, by the second {stop.name}" if stop.name else "interrupted"
            raise CommandError(
                f"{reason}; {run.folder} may lack files. Go on with --resume {run.folder}",
                stop.exit_code or 130,
            ) from None
        if outcome.output_error is not None:
            raise outcome.output_error
        _report(run, outcome, stop, remark)
    return stop.exit_code


def _fit(run: Run, stop: StopRequest) -> Outcome:
    """Train until all epochs are done, a signal comes, or it cannot go on."""
    options, trainer, outcome = run.options, run.trainer, Outcome()
    progress = None if options.quiet else show_progress(options.epochs - trainer.epochs)

    def on_batch(done: int, total: int) -> None:
        if progress is not None:
            progress.on_batch(done, total)
        if progress is not None and is_sample_due(run):
            progress.note(sample_lines(run))
        if options.save_steps and trainer.steps % options.save_steps == 0:
            save_checkpoint()
        if stop.signal is not None or outcome.failure:
            trainer.request_stop()

    def on_epoch(row: EpochMetrics) -> None:
        try:
            metrics.write(row)
        except CommandError as error:
            fail(str(error))
        records.on_epoch(row)
        if row.epoch % options.save_every == 0 or row.epoch == options.epochs:
            save_checkpoint()
        try:
            if progress is not None:
                progress.on_epoch(row)
        except OSError as error:
            outcome.output_error = error
        if stop.signal is not None or outcome.failure or outcome.output_error:
            trainer.request_stop()

    def save_checkpoint() -> None:
        try:
            run.checkpoints.save(trainer, counters=_counters(run, outcome))
        except OSError as error:
            outcome.failure = f"cannot write {error.filename}: {error.strerror or error}"

    def fail(reason: str) -> None:
        outcome.failure = reason

    started = time.perf_counter()
    watch = detect_anomaly(steps_done=trainer.steps) if options.detect_anomaly else _NOT_WATCHED
    files = MetricsFile(run.folder, trainer.history)
    keeping = Records(run, fail).writing()
    with files as metrics, keeping as records, progress or _NOT_WATCHED, watch:
        try:
            trainer.fit(
                run.inputs(run.split.x_train),
                run.targets(run.split.y_train),
                epochs=options.epochs,
                batch_size=options.batch_size,
                rng=run.rng,
                test=(run.inputs(run.split.x_test), run.targets(run.split.y_test)),
                on_batch=on_batch,
                on_epoch=on_epoch,
            )
        except AnomalyError as error:
            outcome.failure = str(error)
        except NonFiniteError as error:
            what, _, _ = str(error).partition(" Lower the learning rate")
            outcome.failure = f"{what} Try an --lr below {options.lr:g}, or check the data"
        except MemoryError as error:
            outcome.failure = f"out of memory ({error}). Try a smaller --batch-size or network"
        if not _is_complete(run) and not outcome.failure:
            save_checkpoint()  # in the middle of an epoch
    outcome.seconds = time.perf_counter() - started
    return outcome


def _save_model(run: Run, outcome: Outcome) -> None:
    trainer, path = run.trainer, run.folder / MODEL
    with writing(path):
        save(path, trainer.model, trainer.optimizer, counters=_counters(run, outcome))


def _counters(run: Run, outcome: Outcome) -> dict[str, Any]:
    status, split = "finished" if _is_complete(run) else "stopped", run.split
    return {
        "epochs": run.trainer.epochs,
        "steps": run.trainer.steps,
        "status": "failed" if outcome.failure else status,
        "standardize": run.scaling_config(),
        **(
            {"tokenizer": split.tokenizer.config()}
            if isinstance(split, TextSplit)
            else {"table": run.table_config()}
        ),
    }


def _is_complete(run: Run) -> bool:
    return run.trainer.epochs >= run.options.epochs


def _report(run: Run, outcome: Outcome, stop: StopRequest, remark: str | None) -> None:
    if outcome.failure:
        raise CommandError(f"{outcome.failure}. Run folder {run.folder}", FAILED)
    _say(run, *_remarks(run, stop))
    if remark:
        _say(run, remark)
    _say(run, f"files     {', '.join(n for n in RUN_FILES if (run.folder / n).exists())}")
    print(f"test {result_text(run)} in {outcome.seconds:.1f} s; run folder {run.folder}")


def _remarks(run: Run, stop: StopRequest) -> list[str]:
    """Return what was out of the ordinary, and how to go on."""
    trainer, options = run.trainer, run.options
    lines = []
    skipped = sum(row.skipped_steps for row in trainer.history)
    if skipped:
        why = "whose loss or gradient was NaN or infinite"
        if trainer.scaler is not None and options.on_nan != "skip":
            why = "whose gradients overflowed float16; the loss scale was lowered"
        lines.append(f"skipped   {skipped} updates {why}")
    if trainer.recorded is not None:
        lines.append(f"graph     {trainer.recorded.describe()}")
    if not _is_complete(run):
        why = f"by {stop.name}"
        if trainer.nonfinite_step is not None:
            why = (
                f"by a loss or gradient that is NaN or infinite, at step {trainer.nonfinite_step},"
            )
        lines += [
            f"stopped   {why} after step {trainer.steps}, in epoch {trainer.epochs + 1} of "
            f"{options.epochs}; what there is is kept",
            f"go on     xbackprop train --resume {shlex.quote(str(run.folder))}",
        ]
    best = run.checkpoints.best(trainer.history)
    if best is not None:
        lines.append(f"best      {best}")
    return lines


def _say(run: Run, *lines: str) -> None:
    if not run.options.quiet:
        print("\n".join(lines), flush=True)
