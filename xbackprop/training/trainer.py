"""The training loop: batches in, steps, metrics out; host arrays at the door, devices inside."""

import itertools
import operator
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import Device
from xbackprop.data.batches import batches
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import precision_of, set_precision
from xbackprop.nn import Module
from xbackprop.optim import LBFGS, Optimizer
from xbackprop.optim.lr_scheduler import ReduceLROnPlateau
from xbackprop.training.door import Door
from xbackprop.training.evaluation import Evaluation, evaluate, predict
from xbackprop.training.history import EpochMetrics
from xbackprop.training.metrics import RunningMeans
from xbackprop.training.recorded import RecordedStep
from xbackprop.training.resume import FitProgress, restore_progress, resume_trainer, save_trainer
from xbackprop.training.scaling import GradScaler
from xbackprop.training.stepping import Stepper, UpdateWatcher


class Trainer:
    """Trains a model: one step, or epochs of them.

    Parameters
    ----------
    model : Module
        What is trained.
    loss_fn : Module
        The loss.
    optimizer : Optimizer
        Updates the model's parameters. The trainer sets its ``skip_nonfinite`` and
        ``stop_at_nonfinite``, so a NaN never reaches the weights.
    scheduler : object with ``step()``, optional
        A schedule of :mod:`xbackprop.optim.lr_scheduler`. ``ReduceLROnPlateau`` is given the test
        loss of the epoch, or the training loss where nothing is tested.
    scheduler_interval : {"epoch", "step"}, default "epoch"
        Whether it is called after every epoch or after every update.
    accumulation_steps : int, default 1
        Batches per update. The gradient is that of the mean over all samples of those batches; the
        last update of an epoch takes what is left.
    on_nan : {"raise", "skip", "stop"}, default "raise"
        What to do when a loss or gradient is NaN or infinite, or a running statistic would become
        so: raise :class:`NonFiniteError`, leave that update out and go on, or let :meth:`fit`
        return. Weights and statistics are those from before that step in every case.
    check_every : int, optional
        How many steps may pass before a non-finite loss is noticed. None is 1 on the CPU, where
        looking is free, and 100 on a device, where each look waits. With ``on_nan="skip"`` nobody
        looks before the end of an epoch.
    count_correct : callable, optional
        ``count_correct(output, target)`` returns how many samples of a batch are right, where they
        are. None counts what the loss takes for an answer: for the binary losses each element.
    clip_norm : float, optional
        Largest norm of all gradients of an update together; larger ones are scaled down to it, as
        by :func:`xbackprop.optim.clip_grad_norm_`. With accumulation it is the norm of the group's
        gradient. A norm that is not finite is what ``on_nan`` is about. None clips nothing.
    graph : bool, default False
        Record a step on the device once and replay it for every batch of that shape: the same
        numbers, without Python between the kernels. What cannot be recorded (the CPU, accumulation,
        an op that waits) runs as ordinary steps, with a warning in the log; see ``recorded``.
        Not yet measured on a GPU.
    watcher : UpdateWatcher, optional
        Looks at updates as they are made: :class:`xbackprop.observe.StatisticsRecorder`.
    precision : {"float32", "tf32", "bfloat16", "float16"}, optional
        In what the model computes, see :func:`xbackprop.set_precision`; None leaves the model as
        it is. In float16 the loss is scaled by a :class:`xbackprop.GradScaler`: an update whose
        gradients overflow is skipped, counted in ``skipped_steps``, and tried with a smaller scale
        on the next batch. ``on_nan`` is then about losses that are not finite, and about gradients
        that are not at a scale of 1.
    shards : int, default 1
        Into how many parts each batch is cut along its first axis, on the CPU; they run forward and
        backward in threads, with BLAS at one thread each (:func:`xbackprop.set_num_threads` says
        how many run at once). Gradients are added in the order of the parts: the same number of
        shards gives the same bits, and another one the same numbers to rounding. Layers and losses
        not known to treat each sample on its own are refused by name, and devices. Needs
        threadpoolctl (extra ``fast``).

    Attributes
    ----------
    steps, epochs : int
        Updates asked for, and epochs finished, in all.
    history : list of EpochMetrics
        One row for each finished epoch.
    nonfinite_step : int or None
        With ``on_nan="stop"``: the step at which training stopped.
    recorded : RecordedStep or None
        With ``graph=True``: its ``replays``, ``ordinary_steps``, and the ``reason`` for these.
    scaler : GradScaler or None
        Of the loss, in float16.

    Examples
    --------
    >>> import xbackprop as xb
    >>> digits = xb.data.load_digits()
    >>> model = xb.nn.Sequential(xb.nn.Linear(64, 10), rng=0)
    >>> trainer = xb.Trainer(
    ...     model, xb.nn.CrossEntropyLoss(), xb.optim.Adam(model.parameters(), lr=0.01)
    ... )
    >>> history = trainer.fit(digits.x_train, digits.y_train, epochs=3, rng=0)
    >>> history[-1].train_accuracy > 0.8
    True
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Module,
        optimizer: Optimizer,
        *,
        scheduler: Any = None,
        scheduler_interval: str = "epoch",
        accumulation_steps: int = 1,
        on_nan: str = "raise",
        check_every: int | None = None,
        count_correct: Callable[[Array, Array], Array] | None = None,
        clip_norm: float | None = None,
        graph: bool = False,
        watcher: UpdateWatcher | None = None,
        precision: str | None = None,
        shards: int = 1,
    ) -> None:
        if getattr(loss_fn, "reduction", "mean") == "none":
            raise ValueError(
                f"Trainer expects a loss that is one number; got {type(loss_fn).__name__} with "
                "reduction='none'. Use reduction='mean' or 'sum'."
            )
        if isinstance(optimizer, LBFGS):
            raise NotImplementedError(
                "Trainer with LBFGS: it evaluates a batch several times. Write the loop and call "
                "optimizer.step(closure)."
            )
        if scheduler_interval not in ("epoch", "step"):
            raise ValueError(
                f"Trainer expects scheduler_interval 'epoch' or 'step'; got {scheduler_interval!r}"
            )
        if scheduler_interval == "step" and isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("Trainer: ReduceLROnPlateau watches epochs; leave scheduler_interval")
        if precision is not None:
            set_precision(model, precision)
        self.scaler = GradScaler() if precision_of(model) == "float16" else None
        self.stepper = Stepper(
            model,
            loss_fn,
            optimizer,
            accumulation_steps=accumulation_steps,
            on_nan=on_nan,
            check_every=check_every,
            scheduler=scheduler if scheduler_interval == "step" else None,
            clip_norm=clip_norm,
            graph=graph,
            watcher=watcher,
            scaler=self.scaler,
            shards=shards,
        )
        self.door = Door(model, loss_fn)
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.count_correct = count_correct
        self.history: list[EpochMetrics] = []
        self.progress: FitProgress | None = None
        self.resumed_fit: dict[str, Any] | None = None
        self._stop_requested = False

    @property
    def steps(self) -> int:
        """Updates asked for so far."""
        return self.stepper.steps

    @property
    def epochs(self) -> int:
        """Epochs finished so far."""
        return self.stepper.epochs

    @property
    def recorded(self) -> RecordedStep | None:
        """With ``graph=True``: what records and replays; else None."""
        return self.stepper.recorded

    @property
    def nonfinite_step(self) -> int | None:
        """With ``on_nan="stop"``: the step at which training stopped; else None."""
        return self.stepper.nonfinite_step

    # --- one step -------------------------------------------------------------------------

    def step(self, x: Any, y: Any) -> Array:
        """Do one forward, backward and update; with accumulation, the update when it is due.

        Parameters
        ----------
        x, y : array
            One batch; moved to the model's device when it is on the host.

        Returns
        -------
        array, shape ()
            The loss before the update, on the device.

        Raises
        ------
        NonFiniteError
            When a loss, gradient or running statistic was NaN or infinite within the last
            ``check_every`` steps, with ``on_nan="raise"``.
        """
        loss, _ = self.stepper.run(*self.door.place(x, y))
        return loss

    # --- epochs ---------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 64,
        rng: RandomSource = None,
        test: tuple[Any, Any] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
        on_epoch: Callable[[EpochMetrics], None] | None = None,
    ) -> list[EpochMetrics]:
        """Train for some epochs.

        Parameters
        ----------
        X : array_like, or iterable of pairs
            Host inputs; or, with ``y`` None, an iterable of ``(x, y)`` batches that can be gone
            through once per epoch (NumPy, DLPack, PyTorch CPU tensors, device arrays).
        y : array_like, optional
            Host targets.
        epochs : int, default 1
            How often to go through the data.
        batch_size : int, default 64
            Samples per step.
        rng : Generator, int or None
            Draws the order of the samples, anew in each epoch.
        test : tuple of array_like, optional
            Inputs and targets that are evaluated after every epoch.
        on_batch : callable, optional
            Called with (batches done, batches in the epoch) after every step.
        on_epoch : callable, optional
            Called with the epoch's metrics.

        Returns
        -------
        list of EpochMetrics
            The rows of these epochs; all rows are in ``history``.

        Raises
        ------
        NonFiniteError
            See :meth:`step`.
        ValueError
            For labels out of range, seen on the host before anything moves; for empty data.
        """
        if test is not None:
            self.door.check_labels(test[1])  # now, and not after an epoch
        progress = FitProgress(self._batches_of(X, y, batch_size, rng), self._new_means())
        if self.resumed_fit is not None:
            restore_progress(progress, self.resumed_fit)
            self.resumed_fit = None
        self.progress = progress
        self._stop_requested = False
        self.stepper.nonfinite_step = None
        rows = []
        while progress.epochs < epochs:
            row = self._run_epoch(progress, test, on_batch)
            if row is None:
                break
            rows.append(row)
            self.history.append(row)
            if on_epoch is not None:
                on_epoch(row)
            if self._must_stop():
                break
        if progress.epochs >= epochs:
            self.progress = None
        return rows

    def request_stop(self) -> None:
        """Let :meth:`fit` return after the current step; safe to call from a signal handler.

        An epoch that is broken off has no row in the history. :meth:`save` keeps where it stands.
        """
        self._stop_requested = True

    def _must_stop(self) -> bool:
        return self._stop_requested or self.nonfinite_step is not None

    def _batches_of(self, X: Any, y: Any, batch_size: int, rng: RandomSource) -> Any:
        if y is not None:
            self.door.check_labels(y)
            # One set of batches for all epochs, so that each epoch gets the next permutation.
            return batches(
                X, y, batch_size, rng=as_generator(rng),
                dtype=self.door.dtype, device=self.door.device,
            )  # fmt: skip
        if is_array(X) or hasattr(X, "__dlpack__"):
            raise TypeError(
                f"fit without y expects an iterable of (x, y) batches; got {type(X).__name__}. "
                "Call fit(X, y)."
            )
        return X

    def _new_means(self) -> RunningMeans:
        return RunningMeans(
            self.loss_fn, self.count_correct, skip_nonfinite=self.stepper.on_nan == "skip"
        )

    def _run_epoch(
        self,
        progress: FitProgress,
        test: tuple[Any, Any] | None,
        on_batch: Callable[[int, int], None] | None,
    ) -> EpochMetrics | None:
        """Run an epoch, or what is left of it; None when it is broken off."""
        started = time.perf_counter() - progress.seconds
        total = operator.length_hint(progress.source)
        self.model.train()
        if not progress.batches:
            progress.lr = float(self.optimizer.param_groups[0]["lr"])
        for x, y in _batches_left(progress):
            x, y = self.door.place(x, y)
            progress.means.add(*self.stepper.run(x, y), y)
            progress.batches += 1
            progress.seconds = time.perf_counter() - started
            if on_batch is not None:
                on_batch(progress.batches, total)
            if self._must_stop() and progress.batches != total:
                return None
        self.stepper.finish_group()
        self.stepper.look_for_nonfinite()
        if not progress.means.samples:
            raise ValueError(
                f"epoch {self.epochs + 1}: the data gave no samples. Expected an iterable that can "
                "be gone through once per epoch, such as a list of batches or "
                "xbackprop.data.batches(...); a generator is used up after one."
            )
        return self._finish_epoch(progress, test, started)

    def _finish_epoch(
        self, progress: FitProgress, test: tuple[Any, Any] | None, started: float
    ) -> EpochMetrics:
        self.stepper.epochs += 1
        trained_loss, trained_accuracy = progress.means.read()
        skipped = progress.skipped + self.stepper.count_skipped()
        tested = None if test is None else self.evaluate(*test)
        self._move_schedule(trained_loss if tested is None else tested.loss)
        progress.epochs += 1
        progress.batches = progress.skipped = 0
        progress.means = self._new_means()
        progress.seconds = 0.0
        return EpochMetrics(
            self.epochs,
            self.steps,
            trained_loss,
            trained_accuracy,
            None if tested is None else tested.loss,
            None if tested is None else tested.accuracy,
            progress.lr,
            skipped,
            time.perf_counter() - started,
        )

    def _move_schedule(self, loss: float) -> None:
        if self.scheduler is None or self.scheduler_interval == "step":
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

    # --- to a file and back ---------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, counters: dict[str, Any] | None = None) -> None:
        """Write everything that going on needs into one file; :func:`xbackprop.load` reads it too.

        Parameters
        ----------
        path : path
            Where to; an existing file is replaced in one move, never half-written.
        counters : dict, optional
            Plain data (JSON) of your own, kept in the file.

        Raises
        ------
        OSError
            When the disk refuses; names the path. The old file is then still whole.
        TypeError
            When the architecture, ``counters`` or the scheduler's state is not plain data.

        Notes
        -----
        May be called at any time, also from ``on_batch`` and ``on_epoch``: weights, optimizer,
        schedule, random counters, history, the order of the data and the place in it, the means of
        the unfinished epoch and, with accumulation, the gradients of the unfinished group.
        """
        save_trainer(self, path, counters or {})

    def resume(self, path: str | os.PathLike[str]) -> Self:
        """Go on where :meth:`save` was called; the next ``fit`` does what was left of that one.

        Call the next ``fit`` with the arguments of the one that was broken off: ``epochs`` counts
        those that it had done. On the same machine, with the same threads and versions, the run is
        then bit-equal to one that was never broken off.

        Parameters
        ----------
        path : path
            A file of :meth:`save`. The trainer must be made as the one that was saved.

        Returns
        -------
        Trainer
            This trainer.

        Raises
        ------
        CheckpointError
            When the file is damaged, or of another network, loss, optimizer, schedule or
            ``accumulation_steps``; it says which. Nothing was changed then.
        FileNotFoundError
            When there is no such file.
        """
        resume_trainer(self, path)
        return self

    # --- without training -----------------------------------------------------------------

    def predict(self, X: Any, *, batch_size: int = 1024) -> np.ndarray:
        """Return the model's output for host inputs, in evaluation mode.

        Parameters
        ----------
        X : array_like
            Inputs on the host.
        batch_size : int, default 1024
            Samples per forward.

        Returns
        -------
        numpy.ndarray
        """
        return predict(self.door, X, batch_size)

    def evaluate(self, X: Any, y: Any, *, batch_size: int = 1024) -> Evaluation:
        """Return loss and accuracy on host data, in evaluation mode.

        Parameters
        ----------
        X, y : array_like
            Inputs and targets on the host.
        batch_size : int, default 1024
            Samples per forward.

        Returns
        -------
        Evaluation
        """
        return evaluate(self.door, X, y, batch_size, self.count_correct)

    def to(self, device: str | Device) -> Self:
        """Move model and loss to a device; the optimizer's state follows at its next step."""
        self.model.to(device)
        self.loss_fn.to(device)
        return self


def _batches_left(progress: FitProgress) -> Iterator[Any]:
    """Go through an epoch's batches; those that a resumed run had done are passed over.

    A source with ``state_dict`` has been set to its place and yields only the others.
    """
    source = progress.source
    done = 0 if hasattr(source, "load_state_dict") else progress.batches
    return itertools.islice(source, done, None)
