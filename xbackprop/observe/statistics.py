"""What training does to each layer: norms, sizes of updates and histograms, every so many updates.

Everything is computed where the network lives and downloaded as one array per recorded update.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_array
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Module, Parameter
from xbackprop.optim import Optimizer
from xbackprop.testing.watching import replacing_forwards

Row = dict[str, Any]

_DECADES, _PER_DECADE = (-8, 4), 4
_POSITIVE = 10.0 ** (np.arange(_DECADES[0] * _PER_DECADE, _DECADES[1] * _PER_DECADE + 1) / 4)
# The same for every layer and every update, so that histograms can be laid side by side. Between
# the smallest two lies zero.
EDGES = np.concatenate([-_POSITIVE[::-1], _POSITIVE])
_MOMENTS = ("mean", "std", "min", "max")


class StatisticsRecorder:
    """Records what some updates of a training do to each layer; a ``watcher`` of ``Trainer``.

    Update 1 and every ``every``-th are recorded. A row is plain data: ``step``, ``lr``,
    ``grad_norm`` (of all gradients together, before they are clipped) and ``layers``, by path:
    ``type`` and

    - of a layer with parameters of its own ``grad_norm``, ``weight_norm`` (before the update),
      ``update_norm``, and ``gradients``: of the parameters, before they are clipped;
    - of it and of a layer that holds no others ``outputs``: of its last call in the update.

    ``gradients`` and ``outputs`` hold ``mean``, ``std``, ``min``, ``max``, and a histogram:
    ``counts`` of the numbers between :data:`EDGES`, four bins to a power of ten in each direction;
    bin ``i`` ends below ``EDGES[i]``, and ``first`` is the ``i`` of the first count that is not 0.
    NaN is counted with what is too large. A number that is not finite is None.

    Parameters
    ----------
    model : Module
        Of one device.
    optimizer : Optimizer
        Updates it.
    every : int
        Updates from one row to the next.
    on_row : callable
        Called with each row.

    Examples
    --------
    >>> import xbackprop as xb
    >>> rows = []
    >>> digits = xb.data.load_digits()
    >>> model = xb.nn.Sequential(xb.nn.Linear(64, 10), rng=0)
    >>> optimizer = xb.optim.SGD(model.parameters(), lr=0.01)
    >>> recorder = xb.observe.StatisticsRecorder(model, optimizer, every=10, on_row=rows.append)
    >>> trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), optimizer, watcher=recorder)
    >>> _ = trainer.fit(digits.x_train, digits.y_train, batch_size=64, rng=0)
    >>> [row["step"] for row in rows]
    [1, 10, 20]
    >>> sorted(rows[0]["layers"]["0"])
    ['grad_norm', 'gradients', 'outputs', 'type', 'update_norm', 'weight_norm']
    """

    def __init__(
        self, model: Module, optimizer: Optimizer, *, every: int, on_row: Callable[[Row], None]
    ) -> None:
        if every < 1:
            raise ValueError(f"StatisticsRecorder expects every >= 1; got {every}")
        self.optimizer = optimizer
        self.every = every
        self.on_row = on_row
        self._model = model
        self._types = {path: type(module).__name__ for path, module in model.named_modules()}
        self._edges: Any = None
        self._weights: dict[str, list[tuple[Parameter, Array]]] = {}
        self._vectors: dict[str, dict[str, Array]] = {}  # of each path, by what they tell of
        self._lr = 0.0

    def is_due(self, step: int) -> bool:
        """Tell whether an update, counted from 1 on, is recorded."""
        return step == 1 or step % self.every == 0

    @contextlib.contextmanager
    def watch_batch(self, step: int) -> Iterator[None]:
        """Look at the outputs of the layers, during a batch of the update ``step``."""
        if not self.is_due(step):
            yield
            return
        self._vectors = {}
        with replacing_forwards(self._model, self._forward):
            yield

    def before_update(self, step: int) -> None:
        """Look at the gradients, and keep the weights."""
        if not self.is_due(step):
            return
        self._lr = float(self.optimizer.param_groups[0]["lr"])
        self._weights = {}
        for name, parameter in self._model.named_parameters():
            if parameter.has_grad and parameter.requires_grad:
                path = name.rpartition(".")[0]
                kept = self._weights.setdefault(path, [])
                kept.append((parameter, parameter.data.copy()))
        for path, kept in self._weights.items():
            vectors = self._vectors.setdefault(path, {})
            grads = [_flat(parameter.grad) for parameter, _ in kept]
            vectors["gradients"] = self._describe(get_array_module(grads[0]).concatenate(grads))
            vectors["grad_norm"] = _norm(grads)

    def after_update(self, step: int) -> None:
        """Compare the weights with those kept, download all, and hand the row over."""
        if not self.is_due(step):
            return
        for path, kept in self._weights.items():
            vectors = self._vectors[path]
            vectors["weight_norm"] = _norm([_flat(before) for _, before in kept])
            vectors["update_norm"] = _norm([_flat(p.data) - _flat(before) for p, before in kept])
        self._weights = {}
        vectors, self._vectors = self._vectors, {}
        told = [(path, key, vector) for path, of in vectors.items() for key, vector in of.items()]
        if not told:
            return
        xp = get_array_module(told[0][2])
        numbers = to_host(xp.concatenate([vector for _, _, vector in told]))
        layers: dict[str, Row] = {path: {"type": self._types[path]} for path in vectors}
        for path, key, vector in told:
            own, numbers = numbers[: len(vector)], numbers[len(vector) :]
            layers[path][key] = _number(own[0]) if len(own) == 1 else _as_histogram(own)
        norms = [layer["grad_norm"] for layer in layers.values() if "grad_norm" in layer]
        total = None if None in norms else math.hypot(*norms)
        order = [path for path in self._types if path in layers]
        self.on_row(
            {
                "step": step,
                "lr": self._lr,
                "grad_norm": total,
                "layers": {path: layers[path] for path in order},
            }
        )

    def _forward(self, path: str, module: Module, *inputs: Any, **options: Any) -> Any:
        result = type(module).forward(module, *inputs, **options)
        if any(module.own_parameters()) or not any(module.children()):
            output = _first_floats(result[0])
            if output is not None:
                self._vectors.setdefault(path, {})["outputs"] = self._describe(_flat(output))
        return result

    def _describe(self, flat: Array) -> Array:
        """Return moments and counts of a flat array as float64, without waiting for them."""
        xp, place = get_array_module(flat), device_of(flat)
        if self._edges is None or device_of(self._edges) != place:
            self._edges = to_device(EDGES.astype(np.float32), place)
        in_order = xp.sort(flat)  # NaN last
        ends = xp.searchsorted(in_order, self._edges.astype(flat.dtype), side="left")
        counts = xp.concatenate([ends[:1], ends[1:] - ends[:-1], flat.size - ends[-1:]])
        wide = flat.astype(np.float64)
        mean = wide.mean()
        apart = wide - mean
        moments = [mean, xp.sqrt((apart * apart).mean()), wide.min(), wide.max()]
        return xp.concatenate([xp.stack(moments), counts.astype(np.float64)])


def _flat(array: Array) -> Array:
    """Return the numbers in one row, halves as float32."""
    flat = array.reshape(-1)
    return flat if flat.dtype.itemsize > 2 else flat.astype(np.float32)


def _norm(arrays: list[Array]) -> Array:
    """Return the norm of all the numbers as a float64 array of shape (1,)."""
    xp = get_array_module(arrays[0])
    wide = xp.concatenate(arrays).astype(np.float64)
    return xp.sqrt((wide * wide).sum()).reshape(1)


def _first_floats(value: Any) -> Any:
    """Return the first float array that has elements; None when there is none."""
    if isinstance(value, (tuple, list)):
        return next((one for one in map(_first_floats, value) if one is not None), None)
    is_float = is_array(value) and value.dtype.kind not in "biuc" and value.size
    return value if is_float else None


def _as_histogram(numbers: np.ndarray) -> Row:
    moments, counts = numbers[: len(_MOMENTS)], numbers[len(_MOMENTS) :].astype(np.int64)
    (filled,) = np.nonzero(counts)
    return {
        **{name: _number(value) for name, value in zip(_MOMENTS, moments, strict=True)},
        "first": int(filled[0]),
        "counts": counts[filled[0] : filled[-1] + 1].tolist(),
    }


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
