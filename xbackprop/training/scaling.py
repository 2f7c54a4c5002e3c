"""Loss scaling: gradients that float16 would lose are multiplied by a number that fits them."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_device_array
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_host
from xbackprop.optim import Optimizer

_SMALLEST = 1.0


class GradScaler:
    """Scales the loss's gradient for float16, and finds the scale, as ``torch.amp.GradScaler``.

    Parameters
    ----------
    init_scale : float, default 65536.0
        First scale, at least 1.
    growth_factor : float, default 2.0
        By which the scale grows, above 1.
    backoff_factor : float, default 0.5
        By which it shrinks where a gradient overflowed, below 1.
    growth_interval : int, default 2000
        Updates without an overflow after which it grows.

    Attributes
    ----------
    scale : float or device scalar
        The present scale, at least 1, on the device of the losses.

    Notes
    -----
    float16 holds nothing between 0 and 6e-8, where many gradients are. The gradient of ``s * loss``
    is ``s`` times as large, and divided by ``s`` in float32. Where it is too large for float16, it
    is infinite; the update is then skipped, and ``s`` shrinks. All of that is decided on the
    device: nothing is downloaded. In difference to PyTorch the scale stays at least 1.

    References
    ----------
    Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model, loss_fn = xb.nn.Linear(2, 1, rng=0), xb.nn.MSELoss()
    >>> xb.set_precision(model, "float16")
    >>> optimizer, scaler = xb.optim.SGD(model.parameters(), lr=0.1), xb.GradScaler(1024.0)
    >>> output, saved = model.forward(xb.asarray([[0.1, 0.2]]))
    >>> loss, loss_saved = loss_fn.forward(output, xb.asarray([[0.1]]))
    >>> grad_output = loss_fn.backward(scaler.grad_output(loss), loss_saved)
    >>> _ = model.backward(grad_output, saved)
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> scaler.get_scale()
    1024.0
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        if not init_scale >= _SMALLEST:
            raise ValueError(f"GradScaler expects init_scale >= 1; got {init_scale}")
        if not growth_factor > 1:
            raise ValueError(f"GradScaler expects growth_factor > 1; got {growth_factor}")
        if not 0 < backoff_factor < 1:
            raise ValueError(
                f"GradScaler expects backoff_factor between 0 and 1; got {backoff_factor}"
            )
        if isinstance(growth_interval, bool) or not growth_interval >= 1:
            raise ValueError(f"GradScaler expects growth_interval >= 1; got {growth_interval}")
        self.growth_factor = growth_factor
        self.backoff_factor = backoff_factor
        self.growth_interval = growth_interval
        self.scale: Any = float(init_scale)
        self._tracker: Any = 0
        self._skipped: Any = 0
        self._finite: Any = True
        self._unscaled: set[int] = set()

    def grad_output(self, loss: Array) -> Any:
        """Return what to give a loss's ``backward`` in place of 1.

        Parameters
        ----------
        loss : array, shape ()
            Says the device.

        Returns
        -------
        float or array, shape ()
        """
        if is_device_array(loss) and isinstance(self.scale, float):
            xp, place = get_array_module(loss), device_of(loss)
            with place.activate():
                self.scale = xp.full((), self.scale, dtype=np.float32)
                self._tracker = xp.full((), self._tracker, dtype=np.int64)
                self._skipped = xp.full((), self._skipped, dtype=np.int64)
        return self.scale

    def may_overflow(self, loss: Array) -> Any:
        """Tell whether a gradient that is not finite is the scale's fault.

        It is not where the scale is 1 already, nor where the loss is not finite itself.

        Parameters
        ----------
        loss : array, shape ()
            Of the update.

        Returns
        -------
        bool or device scalar of bool
        """
        finite = get_array_module(loss).isfinite(loss)
        return (self.scale > _SMALLEST) & (finite if is_device_array(loss) else bool(finite))

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale: before they are clipped. ``step`` does it by itself.

        Parameters
        ----------
        optimizer : Optimizer
            Of whose parameters.
        """
        if id(optimizer) in self._unscaled:
            raise RuntimeError("unscale_() has already been called since the last update()")
        self._unscaled.add(id(optimizer))
        optimizer.scale_gradients(1.0 / self.scale)

    def step(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale and update, where they are finite.

        Parameters
        ----------
        optimizer : Optimizer
            What to update.
        """
        if id(optimizer) not in self._unscaled:
            self.unscale_(optimizer)
        before, optimizer.skip_nonfinite = optimizer.skip_nonfinite, True
        try:
            optimizer.step(may_overflow=True)
        finally:
            optimizer.skip_nonfinite = before
        self.note(optimizer.last_sound)

    def note(self, finite: Any) -> None:
        """Take down whether the gradients of an update were finite, for :meth:`update`."""
        self._finite = self._finite & finite

    def update(self) -> None:
        """Shrink the scale after an overflow; let it grow after many updates without one."""
        finite = self._finite
        self._finite = True
        self._unscaled.clear()
        if not is_device_array(self.scale):
            self._update_on_host(bool(to_host(finite)))
            return
        xp, scale, place = get_array_module(self.scale), self.scale, device_of(self.scale)
        with place.activate():
            if finite is True:  # no gradient was there to be looked at
                finite = xp.isfinite(scale)
            grows = self._tracker + 1 >= self.growth_interval
            grown = scale * self.growth_factor
            grown = xp.where(grows & xp.isfinite(grown), grown, scale)
            shrunk = xp.maximum(scale * self.backoff_factor, _SMALLEST)
            self.scale = xp.where(finite, grown, shrunk)
            self._tracker = xp.where(finite & ~grows, self._tracker + 1, 0)
            self._skipped = self._skipped + (~finite).astype(np.int64)

    def _update_on_host(self, finite: bool) -> None:
        if not finite:
            self.scale = max(self.scale * self.backoff_factor, _SMALLEST)
            self._tracker = 0
            self._skipped += 1
            return
        self._tracker += 1
        if self._tracker >= self.growth_interval:
            self._tracker = 0
            grown = self.scale * self.growth_factor
            if grown <= float(np.finfo(np.float32).max):
                self.scale = grown

    def count_skipped_steps(self) -> int:
        """Return how many updates overflowed since the last call of this; reads one scalar back."""
        skipped = int(to_host(self._skipped))
        self._skipped = self._skipped * 0
        return skipped

    def get_scale(self) -> float:
        """Return the scale as a number; reads it back from a device."""
        return float(to_host(self.scale))

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers under PyTorch's keys; reads two of them back from a device."""
        return {
            "scale": self.get_scale(),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": int(to_host(self._tracker)),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, here or in PyTorch.

        Parameters
        ----------
        state_dict : dict
            With the keys of :meth:`state_dict`.
        """
        fresh = GradScaler(
            *(state_dict[key] for key in (
                "scale", "growth_factor", "backoff_factor", "growth_interval"
            ))
        )  # fmt: skip
        fresh._tracker = int(state_dict["_growth_tracker"])
        vars(self).update(vars(fresh))
