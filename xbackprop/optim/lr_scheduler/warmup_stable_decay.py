"""A schedule that rises, stays, and falls."""

import math

from xbackprop.optim.lr_scheduler.base import LRScheduler
from xbackprop.optim.optimizer import Optimizer


class WarmupStableDecayLR(LRScheduler):
    """Rise along a line to ``initial_lr``, stay there, then fall to ``end_factor * initial_lr``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    warmup_iters : int
        Epochs, or steps, of the rise; may be 0.
    stable_iters : int
        Epochs at ``initial_lr``; may be 0.
    decay_iters : int
        Epochs of the fall; may be 0.
    end_factor : float, default 0.0
        Share of ``initial_lr`` after the fall, in [0, 1].
    decay : {"1-sqrt", "linear", "cosine"}, default "1-sqrt"
        Shape of the fall.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    With ``W``, ``S``, ``D`` epochs, ``lr(t) = initial_lr f(t)``:
    ``f = (t + 1) / (W + 1)`` for ``t < W``, so that no step is lost to a learning rate of 0;
    ``f = 1`` for ``W <= t < W + S``; then, with ``p = min(1, (t - W - S) / D)``,
    ``f = end_factor + (1 - end_factor) shape(p)``, where ``shape`` is ``1 - sqrt(p)``, ``1 - p`` or
    ``(1 + cos(pi p)) / 2``. PyTorch has no such schedule. A learning rate set by hand is
    overwritten, as by LambdaLR.

    References
    ----------
    Hu et al., "MiniCPM: unveiling the potential of small language models with scalable training
    strategies", arXiv:2404.06395, section 4; Haegele et al., "Scaling laws and compute-optimal
    training beyond fixed training durations", NeurIPS 2024 (``1-sqrt``).

    Examples
    --------
    Warm-up and cosine, as GPTs are trained: 2 steps of warm-up, 6 in all, down to a tenth.

    >>> import xbackprop as xb
    >>> optimizer = xb.optim.AdamW(xb.nn.Linear(2, 1, rng=0).parameters(), lr=0.3)
    >>> schedule = WarmupStableDecayLR(optimizer, 2, 0, 6 - 2, end_factor=0.1, decay="cosine")
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(round(schedule.get_last_lr()[0], 3))
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates, round(schedule.get_last_lr()[0], 3)
    ([0.1, 0.2, 0.3, 0.26, 0.165, 0.07], 0.03)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_iters: int,
        stable_iters: int,
        decay_iters: int,
        end_factor: float = 0.0,
        decay: str = "1-sqrt",
        last_epoch: int = -1,
    ) -> None:
        for name, value in (
            ("warmup_iters", warmup_iters),
            ("stable_iters", stable_iters),
            ("decay_iters", decay_iters),
        ):
            if not value >= 0:
                raise ValueError(f"WarmupStableDecayLR expects {name} >= 0; got {value}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"WarmupStableDecayLR expects end_factor in [0, 1]; got {end_factor}")
        if decay not in ("1-sqrt", "linear", "cosine"):
            raise ValueError(
                f"WarmupStableDecayLR expects decay '1-sqrt', 'linear' or 'cosine'; got {decay!r}"
            )
        self.warmup_iters = warmup_iters
        self.stable_iters = stable_iters
        self.decay_iters = decay_iters
        self.end_factor = end_factor
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch."""
        factor = self._factor()
        return [base_lr * factor for base_lr in self.base_lrs]

    def _factor(self) -> float:
        if self.last_epoch < self.warmup_iters:
            return (self.last_epoch + 1) / (self.warmup_iters + 1)
        fallen = self.last_epoch - self.warmup_iters - self.stable_iters
        if fallen < 0:
            return 1.0
        share = min(1.0, fallen / self.decay_iters) if self.decay_iters else 1.0
        if self.decay == "linear":
            height = 1.0 - share
        elif self.decay == "cosine":
            height = (1.0 + math.cos(math.pi * share)) / 2
        else:
            height = 1.0 - math.sqrt(share)
        return self.end_factor + (1.0 - self.end_factor) * height
