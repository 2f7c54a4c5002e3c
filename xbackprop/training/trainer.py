"""The training loop: batches in, steps, metrics out; host arrays at the door, devices inside."""

import operator
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from xbackprop.backend.array_module import Array, is_array, is_device_array
from xbackprop.backend.device import Device, resolve_device
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.data.arrays import as_host_array, is_float_dtype
from xbackprop.data.batches import batches
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import as_one_call
from xbackprop.nn import CrossEntropyLoss, Module
from xbackprop.nn.losses import check_class_indices
from xbackprop.optim import Optimizer
from xbackprop.training.metrics import RunningMeans, count_classes


class NonFiniteError(RuntimeError):
    """The loss or a gradient became NaN or infinite; the weights before that step are kept."""


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and, for classes, the share of right answers."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class EpochMetrics:
    """One row of a run's history."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def value_and_grad(model: Module, loss_fn: Module) -> Callable[..., tuple[Array, Array]]:
    """Return a function that computes the loss and fills the gradients.

    Parameters
    ----------
    model : Module
        Maps ``x`` to an output.
    loss_fn : Module
        Maps output and target to a loss.

    Returns
    -------
    callable
        ``loss, output = f(x, y)``; gradients are added to those already there.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(2, 1, rng=0)
    >>> loss, output = xb.value_and_grad(model, xb.nn.MSELoss())(
    ...     xb.asarray([[1.0, 2.0]]), xb.asarray([[1.0]])
    ... )
    >>> model.weight.grad.shape
    (1, 2)
    """

    def compute(x: Any, y: Any) -> tuple[Array, Array]:
        inputs = x if isinstance(x, tuple) else (x,)
        with as_one_call(*inputs):
            output, saved = model.forward(*inputs)
            loss, loss_saved = loss_fn.forward(output, y)
            model.backward(loss_fn.backward(1.0, loss_saved), saved, input_grad=False)
        return loss, output

    return compute


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
        ``stop_at_nonfinite``, so a NaN never reaches the weights, nor does anything after it.
    scheduler : object with ``step()``, optional
        Called after every epoch.
    check_every : int, optional
        How many steps may pass before a non-finite loss is noticed. None is 1 on the CPU, where
        looking is free, and 100 on a device, where each look waits.
    count_correct : callable, optional
        ``count_correct(output, target)`` returns how many samples of a batch are right, where they
        are. None counts what the loss takes for an answer: for the binary losses each element.

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
        check_every: int | None = None,
        count_correct: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        if check_every is not None and check_every < 1:
            raise ValueError(f"Trainer expects check_every >= 1; got {check_every}")
        if getattr(loss_fn, "reduction", "mean") == "none":
            raise ValueError(
                f"Trainer expects a loss that is one number; got {type(loss_fn).__name__} with "
                "reduction='none'. Use reduction='mean' or 'sum'."
            )
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.check_every = check_every
        self.count_correct = count_correct
        self.steps = 0
        self.epochs = 0
        self.history: list[EpochMetrics] = []
        optimizer.skip_nonfinite = optimizer.stop_at_nonfinite = True
        self._value_and_grad = value_and_grad(model, loss_fn)
        self._stop_requested = False

    # --- one step -------------------------------------------------------------------------

    def step(self, x: Any, y: Any) -> Array:
        """Do one forward, backward and update.

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
            When a loss or gradient was NaN or infinite within the last ``check_every`` steps.
        """
        x, y = self._place(x, y)
        loss, _ = self._step(x, y)
        return loss

    def _step(self, x: Any, y: Any) -> tuple[Array, Array]:
        self.optimizer.zero_grad()
        with as_one_call(*(x if isinstance(x, tuple) else (x,))):  # the update is silent too
            loss, output = self._value_and_grad(x, y)
            self.optimizer.step(loss=loss)
        self.steps += 1
        every = self.check_every or (100 if is_device_array(loss) else 1)
        if self.steps % every == 0:
            self._raise_if_nonfinite()
        return loss, output

    def _raise_if_nonfinite(self) -> None:
        before = self.optimizer.calls
        bad = self.optimizer.first_nonfinite_step()
        if bad is not None:
            step = self.steps - (before - bad)
            raise NonFiniteError(
                f"the loss or a gradient became NaN or infinite at step {step} "
                f"(epoch {self.epochs + 1}); the weights from before that step are kept. "
                "Lower the learning rate, clip gradients, or check the data and the labels."
            )

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
            self._check_labels(test[1])  # now, and not after an epoch
        if y is None:
            if is_array(X) or hasattr(X, "__dlpack__"):
                raise TypeError(
                    f"fit without y expects an iterable of (x, y) batches; got {type(X).__name__}. "
                    "Call fit(X, y)."
                )
            source: Any = X
        else:
            self._check_labels(y)
            # One set of batches for all epochs, so that each epoch gets the next permutation.
            source = batches(
                X, y, batch_size, rng=as_generator(rng), dtype=self._dtype, device=self._device
            )
        rows = []
        self._stop_requested = False
        for _ in range(epochs):
            row = self._run_epoch(source, test, on_batch)
            rows.append(row)
            self.history.append(row)
            if on_epoch is not None:
                on_epoch(row)
            if self._stop_requested:
                break
        return rows

    def request_stop(self) -> None:
        """Let :meth:`fit` return after the current step; safe to call from a signal handler."""
        self._stop_requested = True

    def _run_epoch(
        self,
        source: Any,
        test: tuple[Any, Any] | None,
        on_batch: Callable[[int, int], None] | None,
    ) -> EpochMetrics:
        started = time.perf_counter()
        total = operator.length_hint(source)
        means = RunningMeans(self.loss_fn, self.count_correct)
        self.model.train()
        lr = float(self.optimizer.param_groups[0]["lr"])
        for number, (x, y) in enumerate(source, start=1):
            x, y = self._place(x, y)
            means.add(*self._step(x, y), y)
            if on_batch is not None:
                on_batch(number, total)
            if self._stop_requested:
                break
        self._raise_if_nonfinite()
        if not means.samples:
            raise ValueError(
                f"epoch {self.epochs + 1}: the data gave no samples. Expected an iterable that can "
                "be gone through once per epoch, such as a list of batches or "
                "xbackprop.data.batches(...); a generator is used up after one."
            )
        self.epochs += 1
        trained_loss, trained_accuracy = means.read()
        tested = None if test is None else self.evaluate(*test)
        if self.scheduler is not None:
            self.scheduler.step()
        return EpochMetrics(
            self.epochs,
            self.steps,
            trained_loss,
            trained_accuracy,
            None if tested is None else tested.loss,
            None if tested is None else tested.accuracy,
            lr,
            time.perf_counter() - started,
        )

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
        with _evaluating(self.model):
            outputs = [
                to_host(self.model(*x) if isinstance(x, tuple) else self.model(x))
                for x in batches(X, None, batch_size, dtype=self._dtype, device=self._device)
            ]
        return np.concatenate(outputs)

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
        self._check_labels(y)
        means = RunningMeans(self.loss_fn, self.count_correct)
        with _evaluating(self.model):
            for x, target in batches(X, y, batch_size, dtype=self._dtype, device=self._device):
                output = self.model(*x) if isinstance(x, tuple) else self.model(x)
                means.add(self.loss_fn(output, target), output, target)
        return Evaluation(*means.read())

    def to(self, device: str | Device) -> Self:
        """Move model and loss to a device; the optimizer's state follows at its next step."""
        self.model.to(device)
        self.loss_fn.to(device)
        return self

    # --- at the door ----------------------------------------------------------------------

    @property
    def _device(self) -> Device:
        return self.model.device or resolve_device(None)

    @property
    def _dtype(self) -> Any:
        return self.model.dtype or np.dtype(np.float32)

    def _place(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Move one batch to the model's device; device arrays pass through."""
        target = self._cast(y, "y")
        if not is_device_array(target) and not is_float_dtype(target.dtype):
            target = target.astype(np.int64, copy=False)  # as batches() does
        self._check_labels(target)
        parts = x if isinstance(x, tuple) else (x,)
        moved = tuple(self._move(self._cast(part, "x")) for part in parts)
        return moved if isinstance(x, tuple) else moved[0], self._move(target)

    def _move(self, array: Array) -> Array:
        return array if is_device_array(array) else to_device(array, self._device)

    def _cast(self, values: Any, name: str) -> Array:
        """Return a host array of the model's float dtype; what lies on a device stays as it is."""
        if is_device_array(values):
            return values
        is_scalar = isinstance(values, (bool, int, float)) or getattr(values, "ndim", 1) == 0
        host = np.asarray(values) if is_scalar else as_host_array(values, name, allow_empty=True)
        return host.astype(self._dtype, copy=False) if is_float_dtype(host.dtype) else host

    def _check_labels(self, y: Any) -> None:
        """Look at class indices while they are on the host, before anything moves."""
        if not isinstance(self.loss_fn, CrossEntropyLoss) or is_device_array(y):
            return
        classes = count_classes(self.model)
        labels = np.asarray(y)
        # With further axes the classes lie along axis 1, where only the loss can count them.
        if classes is not None and labels.dtype.kind in "iu" and labels.ndim <= 1:
            check_class_indices("CrossEntropyLoss", labels, classes, self.loss_fn.ignore_index)


class _evaluating:
    """Switch a model to evaluation and give every module its own mode back."""

    def __init__(self, model: Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        for module, training in self.modes:
            module.training = training
