"""A training step that is recorded once and replayed: the same kernels, without Python in between.

The first batches are ordinary steps on the recorder's stream. Then one step is captured: what its
kernels read and write are from there on these very arrays, so a batch is copied into the buffers of
the first one, and learning rate and counts are device scalars that the host fills before a replay.
Everything else that the host decided is part of the recording; when it has changed, another one is
made. What cannot be recorded runs as ordinary steps, and says why.
"""

import logging
from collections.abc import Callable
from typing import Any

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.capture import CaptureError, Recorder, open_recorder
from xbackprop.backend.device import device_of
from xbackprop.dispatch import is_observed
from xbackprop.module import Module, Parameter
from xbackprop.module.precision import precision_of
from xbackprop.optim import Optimizer
from xbackprop.optim.recording import (
    count_replay,
    fill_scalars,
    fingerprint,
    living_arrays,
    read_counts,
    restore_counts,
)
from xbackprop.training.gradients import as_tuple
from xbackprop.training.scaling import GradScaler

logger = logging.getLogger("xbackprop")

WARM_UP_STEPS = 2  # the second one finds all that the first one had to make
MOST_RECORDINGS = 8
_PLAIN = (bool, int, float, str, tuple, type(None))

Form = list[tuple[tuple[int, ...], Any]]
Step = Callable[[Any, Any], tuple[Array, Array]]


class RecordedStep:
    """Runs training steps from a recording where it can.

    Parameters
    ----------
    model, loss_fn, optimizer
        As :class:`xbackprop.Trainer` has them.
    step : callable
        ``loss, output = step(x, y)``: zero_grad, forward, backward and update, and nothing that
        only concerns the host.
    scaler : GradScaler, optional
        That ``step`` scales the loss with.

    Attributes
    ----------
    reason : str or None
        Why steps run one by one, from the moment that this is known.
    replays, recordings : int
        Steps that were replayed, and how often a step was recorded.
    ordinary_steps : int
        Steps that were not: the warm-up, batches of another shape, and all after ``reason``.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Module,
        optimizer: Optimizer,
        step: Step,
        scaler: GradScaler | None = None,
    ) -> None:
        self.modules = (("model", model), ("loss", loss_fn))
        self.optimizer = optimizer
        self.step = step
        self.scaler = scaler
        self.reason: str | None = None
        self.replays = self.recordings = self.ordinary_steps = 0
        self._forget()

    def _forget(self) -> None:
        """Drop the recording; the next steps warm up for another."""
        self._recorder: Recorder | None = None
        self._warmed = 0
        self._buffers: list[Array] = []
        self._result: tuple[Array, Array] | None = None
        self._marks: list[Any] = []
        self._last_form: Form | None = None
        self._updated: list[Parameter] = []

    def describe(self) -> str:
        """Say in a few words what came of it."""
        if self.reason is not None:
            return f"steps ran one by one: {self.reason}"
        total = self.replays + self.ordinary_steps
        return f"{self.replays} of {total} steps were replayed"

    def give_up(self, reason: str) -> None:
        """Run ordinary steps from here on, and say why."""
        self._forget()
        self.reason = reason
        logger.warning("graph=True: steps run one by one, without a recording: %s", reason)

    def run(self, x: Any, y: Any) -> tuple[Array, Array]:
        """Do one step: forward, backward, update.

        Parameters
        ----------
        x : array or tuple of arrays
            The inputs, on the model's device.
        y : array
            The target.

        Returns
        -------
        loss, output : array
            ``output`` is valid until the next step.
        """
        if self.reason is None:
            try:
                with device_of(y).activate():
                    result = self._try(x, y)
            except CaptureError as error:
                self.give_up(str(error))
            else:
                if result is not None:
                    return result
        self.ordinary_steps += 1
        return self.step(x, y)

    def _try(self, x: Any, y: Any) -> tuple[Array, Array] | None:
        """Replay, record or warm up; None where this batch is to have an ordinary step."""
        if is_observed():  # who watches ops is to see them
            return None
        if self._result is not None:
            form = _form(_parts(x, y))
            earlier, self._last_form = self._last_form, form
            if form != _form(self._buffers):
                if form != earlier:  # one that stands alone, as the last of an epoch does
                    return None
            elif self._marks == self._fingerprint():
                return self._replay(x, y)
            if self.recordings >= MOST_RECORDINGS:
                raise CaptureError(
                    f"shapes, options or layers changed in each of {self.recordings} recordings; "
                    "all but the learning rate is part of a recording"
                )
            self._forget()
        if self._recorder is None:
            self._recorder = open_recorder(device_of(y))
        if self._warmed < WARM_UP_STEPS:
            result: tuple[Array, Array] = self._recorder.warm_up(lambda: self.step(x, y))
            self._warmed += 1
            self.ordinary_steps += 1
            return result
        self._record(self._recorder, x, y)
        return self._replay(x, y, is_counted=True)

    def _record(self, recorder: Recorder, x: Any, y: Any) -> None:
        """Capture a step on buffers of this batch's shape; the weights are as before afterwards."""
        self._buffers = [array.copy() for array in _parts(x, y)]
        *inputs, target = self._buffers
        model_input = tuple(inputs) if isinstance(x, tuple) else inputs[0]
        before, counts = self._living_arrays(), read_counts(self.optimizer)
        fill_scalars(self.optimizer)
        try:
            self._result = recorder.capture(
                lambda: self.step(model_input, target), [*before.values(), *self._buffers]
            )
            _refuse_moved(before, self._living_arrays())
        except BaseException:
            restore_counts(self.optimizer, counts)
            raise
        self.recordings += 1
        self._updated = [p for _, top in self.modules for p in top.parameters() if p.has_grad]
        self._marks = self._fingerprint()

    def _replay(self, x: Any, y: Any, is_counted: bool = False) -> tuple[Array, Array]:
        assert self._recorder is not None
        assert self._result is not None
        for buffer, array in zip(self._buffers, _parts(x, y), strict=True):
            buffer[...] = array
        if not is_counted:  # else the capture has counted it
            for parameter in self._updated:
                parameter.has_grad = True
            fill_scalars(self.optimizer)
            count_replay(self.optimizer)
        self._recorder.replay()
        self.replays += 1
        loss, output = self._result
        return loss.copy(), output  # the next replay writes the loss anew

    def _living_arrays(self) -> dict[str, Array]:
        """Return every array that outlives a step, by name."""
        found: dict[str, Array] = {}
        for kind, top in self.modules:
            for name, parameter in top.named_parameters():
                found[f"{kind}.{name}"] = parameter.data
                if parameter._grad is not None:
                    found[f"{kind}.{name}.grad"] = parameter._grad
            for path, module in top.named_modules():
                for name, array in module.__dict__.get("_buffers", {}).items():
                    if is_array(array):
                        found[".".join(part for part in (kind, path, name) if part)] = array
        if self.scaler is not None:
            found |= self.scaler.living_arrays()
        return found | living_arrays(self.optimizer)

    def _fingerprint(self) -> list[Any]:
        """Return what the host decides in a step, and where arrays live."""
        marks = fingerprint(self.optimizer)
        if self.scaler is not None:
            marks += self.scaler.fingerprint()
        for _, top in self.modules:
            for parameter in top.parameters():
                marks.append((id(parameter._data), parameter.requires_grad))
            for module in top.modules():
                values = vars(module)
                marks.append(precision_of(module))
                marks += [value for value in values.values() if isinstance(value, _PLAIN)]
                marks += map(id, values.get("_buffers", {}).values())
        return marks


def _parts(x: Any, y: Any) -> list[Array]:
    return [*as_tuple(x), y]


def _form(parts: list[Array]) -> Form:
    return [(array.shape, array.dtype) for array in parts]


def _refuse_moved(before: dict[str, Array], after: dict[str, Array]) -> None:
    """Refuse a step after which something lasting lives in another array: nobody would read it."""
    for name, array in after.items():
        if before.get(name) is not array:
            raise CaptureError(
                f"{name} lives in a new array after the step; a replay would read the old one"
            )
