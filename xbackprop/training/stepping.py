"""One update after the other: accumulation, and what to do about a loss that is no number."""

import contextlib
import math
import numbers
from typing import Any, Protocol

from xbackprop.backend.array_module import Array, get_array_module, is_device_array
from xbackprop.module import Module, as_one_call, updates_stay_finite, withhold_updates
from xbackprop.optim import Optimizer, clip_grad_norm_
from xbackprop.training.accumulation import Accumulation
from xbackprop.training.gradients import as_tuple, forward_backward
from xbackprop.training.memory import Attempt, within_memory
from xbackprop.training.recorded import RecordedStep
from xbackprop.training.scaling import GradScaler
from xbackprop.training.sharding import check_shards, sharded_forward_backward

ON_NAN = ("raise", "skip", "stop")
_DEVICE_LOOKS_EVERY = 100  # steps; each look waits for the device


class NonFiniteError(RuntimeError):
    """The loss, a gradient or a running statistic became NaN or infinite.

    The weights and statistics before that step are kept.
    """


class UpdateWatcher(Protocol):
    """Something that looks at updates, counted from 1 on, as they are made."""

    def watch_batch(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Be around forward and backward of a batch of an update."""

    def before_update(self, step: int) -> None:
        """Be told that the gradients are there; nothing is clipped or updated yet."""

    def after_update(self, step: int) -> None:
        """Be told that the weights are updated."""


class _Rehearsed(Exception):
    """Ends a rehearsal."""


class Stepper:
    """Turns batches into updates.

    Parameters
    ----------
    model, loss_fn, optimizer, accumulation_steps, on_nan, check_every, clip_norm, graph
        See :class:`xbackprop.Trainer`.
    scheduler : object with ``step()``, or None
        Called after every update.
    watcher : UpdateWatcher or None
        Looks at every update.
    scaler : GradScaler or None
        Scales the loss's gradient.
    shards : int
        See :class:`xbackprop.Trainer`.

    Attributes
    ----------
    steps : int
        Updates asked for.
    epochs : int
        Epochs finished.
    nonfinite_step : int or None
        With ``on_nan="stop"``: the step from which on nothing was changed.
    recorded : RecordedStep or None
        With ``graph=True``: what replays steps.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Module,
        optimizer: Optimizer,
        *,
        accumulation_steps: int,
        on_nan: str,
        check_every: int | None,
        clip_norm: float | None = None,
        graph: bool = False,
        scheduler: Any = None,
        watcher: UpdateWatcher | None = None,
        scaler: GradScaler | None = None,
        shards: int = 1,
    ) -> None:
        for name, number in (
            ("check_every", 1 if check_every is None else check_every),
            ("accumulation_steps", accumulation_steps),
        ):
            if number < 1:
                raise ValueError(f"Trainer expects {name} >= 1; got {number}")
        if on_nan not in ON_NAN:
            raise ValueError(f"Trainer expects on_nan to be one of {ON_NAN}; got {on_nan!r}")
        check_shards(model, loss_fn, shards)
        if shards > 1 and watcher is not None:
            raise NotImplementedError(f"Trainer(shards={shards}) with a watcher")
        self.shards = shards
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.on_nan = on_nan
        self.check_every = check_every
        self.scheduler = scheduler
        self.watcher = watcher
        self.scaler = scaler
        self.clip_norm = None if clip_norm is None else _checked_norm(clip_norm)
        self.group = Accumulation(loss_fn, accumulation_steps)
        self.recorded: RecordedStep | None = None
        if graph:
            self.recorded = RecordedStep(model, loss_fn, optimizer, self._step, scaler)
            if accumulation_steps > 1:
                self.recorded.give_up("accumulation_steps > 1: a group of batches is no one step")
            elif watcher is not None:
                self.recorded.give_up("a watcher looks at the updates")
        self.steps = 0
        self.epochs = 0
        self.nonfinite_step: int | None = None
        optimizer.skip_nonfinite = True
        optimizer.stop_at_nonfinite = on_nan != "skip"

    def run(self, x: Any, y: Any) -> tuple[Array, Array]:
        """Do one batch, and the update when it is due.

        Parameters
        ----------
        x, y : array
            On the model's device.

        Returns
        -------
        loss, output : array

        Raises
        ------
        NonFiniteError
            As ``on_nan`` and ``check_every`` want it.
        DeviceMemoryError
            When the GPU has no room for it, also after its pool gave back what it kept; see
            :func:`xbackprop.training.memory.within_memory`.
        """
        inputs = (*as_tuple(x), y)
        before = self.optimizer.calls, self.group.batches
        loss, output = within_memory(
            lambda: self._run(x, y),
            lambda: self._describe(inputs, *before),
            inputs,
            lambda: (self.optimizer.calls, self.group.batches) == before,
        )
        self._look_if_due(loss)
        return loss, output

    def _run(self, x: Any, y: Any) -> tuple[Array, Array]:
        if self.group.every > 1:
            if not self.group.batches:
                self.optimizer.zero_grad()
            with as_one_call(*as_tuple(x)), self._watched():
                return self._accumulate(x, y)
        step = self._step if self.recorded is None else self.recorded.run
        loss, output = step(x, y)
        self._count_update()
        return loss, output

    def _step(self, x: Any, y: Any) -> tuple[Array, Array]:
        """Do what a step does on the device; all of it, for it may be recorded."""
        self.optimizer.zero_grad()
        scale = None if self.scaler is None else self.scaler.grad_output
        # The update is silent too.
        with as_one_call(*as_tuple(x)), self._watched():
            loss, output = self._forward_backward(x, y, scale)
            self._update(judged(loss))
        return loss, output

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        """Return what the watcher puts around a batch."""
        if self.watcher is None:
            return contextlib.nullcontext()
        return self.watcher.watch_batch(self.steps + 1)

    def _forward_backward(self, x: Any, y: Any, factor: Any) -> tuple[Array, Array]:
        if self.shards == 1:
            return forward_backward(self.model, self.loss_fn, x, y, factor)
        return sharded_forward_backward(self.model, self.loss_fn, x, y, self.shards, factor)

    def _describe(self, inputs: tuple[Any, ...], calls: int, batches: int) -> Attempt:
        """Tell of a step that ran out of memory; with accumulation also what became of its group.

        The gradients of an unfinished group must stay, so nothing is computed for measuring then.
        """
        kept = "The weights are unchanged."
        if self.optimizer.calls != calls:
            kept = "It ran out behind the update, which was made."
        elif batches and not self.group.batches:
            kept += f" The gradients of the {batches} batches before it are lost."
        return Attempt(
            "a training step", inputs, None if self.group.batches else self._rehearse, kept
        )

    def _rehearse(self, *inputs: Any) -> None:
        """Use the memory of a step and leave no trace but empty gradients."""
        *parts, y = inputs
        with contextlib.suppress(_Rehearsed), as_one_call(*parts):
            forward_backward(self.model, self.loss_fn, tuple(parts), y)
            self.optimizer.rehearse()
            raise _Rehearsed  # so that what the forward would update is discarded
        self.optimizer.zero_grad()

    def finish_group(self) -> None:
        """Update with what an unfinished group holds, at the end of an epoch."""
        if self.group.batches:
            with as_one_call():
                self._update_from_group()

    def look_for_nonfinite(self) -> None:
        """Raise or stop when a step was skipped; waits for the device."""
        if self.on_nan == "skip":
            return
        before = self.optimizer.calls
        bad = self.optimizer.first_nonfinite_step()
        if bad is None:
            return
        step = self.steps - (before - bad)
        if self.on_nan == "stop":
            self.nonfinite_step = step
            return
        raise NonFiniteError(
            f"the loss, a gradient or a running statistic became NaN or infinite at step {step} "
            f"(epoch {self.epochs + 1}); the weights from before that step are kept. "
            "Lower the learning rate, clip gradients, or check the data and the labels."
        )

    def count_skipped(self) -> int:
        """Return how many updates were left out since the last call: skipped, or overflowed.

        Reads back one scalar, or two.
        """
        skipped = self.optimizer.count_skipped_steps()
        if self.on_nan != "skip":  # then the first of them ends the training
            skipped = 0
        return skipped + (0 if self.scaler is None else self.scaler.count_skipped_steps())

    def _look_if_due(self, loss: Array) -> None:
        every = self.check_every or (_DEVICE_LOOKS_EVERY if is_device_array(loss) else 1)
        if self.steps % every == 0:
            self.look_for_nonfinite()

    def _accumulate(self, x: Any, y: Any) -> tuple[Array, Array]:
        """Add a batch to the group, and update when the group is complete.

        A batch that fails in its backward takes the group along: the next one begins another.
        """
        verdict: Any = None

        def factor(loss: Array) -> Any:
            nonlocal verdict
            verdict = judged(loss)
            weight = self.group.factor_of(y, verdict)
            return weight if self.scaler is None else weight * self.scaler.grad_output(loss)

        before = self.group.batches
        try:
            loss, output = self._forward_backward(x, y, factor)
        except BaseException:
            if self.group.batches != before:  # in the backward: its gradients may be half added
                self.group.reset()
            raise
        if self.group.is_complete:
            self._update_from_group()
        else:
            finite = get_array_module(verdict).isfinite(verdict)
            withhold_updates(finite if is_device_array(loss) else bool(finite))
        return loss, output

    def _update_from_group(self) -> None:
        try:
            self.group.average(self.model.parameters())
            loss = self.group.loss
        finally:
            self.group.reset()  # half averaged gradients are no group either
        self._update(loss)
        self._count_update()

    def _update(self, loss: Any) -> None:
        try:
            self._make_update(loss)
        except BaseException:
            if self.scaler is not None:  # the step is made once more where that helps
                self.scaler.forget_update()
            raise

    def _make_update(self, loss: Any) -> None:
        may_overflow: Any = False
        if self.scaler is not None:
            may_overflow = self.scaler.may_overflow(loss)
            self.scaler.unscale_(self.optimizer)
        if self.watcher is not None:
            self.watcher.before_update(self.steps + 1)
        if self.clip_norm is not None:
            loss = self._clip(loss, self.clip_norm)
        self.optimizer.step(loss=loss, may_overflow=may_overflow)
        if self.scaler is not None:
            self.scaler.note(self.optimizer.last_sound)
            self.scaler.update()
        withhold_updates(self.optimizer.last_finite)

    def _count_update(self) -> None:
        self.steps += 1
        if self.scheduler is not None:
            self.scheduler.step()
        if self.watcher is not None:
            self.watcher.after_update(self.steps)

    def _clip(self, loss: Any, max_norm: float) -> Any:
        """Clip the gradients of the update; return the loss, NaN for it where they have no norm.

        Of gradients whose norm overflows clipping leaves zeros, which would pass for good ones.
        """
        updated = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad and parameter.has_grad
        ]
        if not updated:
            return loss
        norm = clip_grad_norm_(updated, max_norm)
        return loss + norm * 0  # infinity times 0 is NaN


def judged(loss: Array) -> Array:
    """Return the loss, and NaN for it when the forward spoils running statistics.

    Whoever asks whether the loss is finite then treats the batch as a whole, without a wait.
    """
    finite = updates_stay_finite()
    if finite is True:
        return loss
    return get_array_module(loss).where(finite, loss, loss * float("nan"))


def _checked_norm(clip_norm: float) -> float:
    if isinstance(clip_norm, bool) or not isinstance(clip_norm, numbers.Real):
        raise TypeError(f"Trainer expects clip_norm to be a number or None; got {clip_norm!r}")
    if not 0 < clip_norm < math.inf:
        raise ValueError(
            f"Trainer expects clip_norm above 0 and finite; got {clip_norm}. None clips nothing."
        )
    return float(clip_norm)
