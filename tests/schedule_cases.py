"""THE table of schedules: one row per schedule, and per option that changes what it computes.

`test_lr_scheduler.py` runs the rows by themselves, `test_lr_scheduler_parity.py` beside PyTorch. A
row builds its schedule from `schedules` (the module `lr_scheduler`, here or in PyTorch) and an
optimizer with two groups.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Make = Callable[[Any, Any, int], Any]


@dataclass(frozen=True)
class ScheduleCase:
    name: str
    make: Make  # (schedules, optimizer, last_epoch)
    optimizer: str = "SGD"
    epochs: int = 200
    resumes: bool = True  # its constructor takes last_epoch and goes on from there
    is_in_pytorch: bool = True


class Halving:
    """A callable with something to remember."""

    def __init__(self) -> None:
        self.base = 0.5

    def __call__(self, epoch: float) -> float:
        return self.base ** (epoch / 50)


def plain(cls: str, **options: Any) -> Make:
    return lambda schedules, optimizer, last_epoch: getattr(schedules, cls)(
        optimizer, **options, last_epoch=last_epoch
    )


def sequence(*parts: Make, milestones: list[int]) -> Make:
    return lambda schedules, optimizer, last_epoch: schedules.SequentialLR(
        optimizer, [make(schedules, optimizer, -1) for make in parts], milestones
    )


def chain(*parts: Make) -> Make:
    return lambda schedules, optimizer, last_epoch: schedules.ChainedScheduler(
        [make(schedules, optimizer, -1) for make in parts]
    )


def cyclic(**options: Any) -> Make:
    return plain("CyclicLR", **{"base_lr": 0.01, "max_lr": [0.1, 0.2], **options})


def one_cycle(**options: Any) -> Make:
    return plain("OneCycleLR", **{"max_lr": [0.5, 1.0], "total_steps": 201, **options})


def swa(**options: Any) -> Make:
    return lambda schedules, optimizer, last_epoch: swa_utils(schedules).SWALR(
        optimizer, [0.05, 0.1], **options, last_epoch=last_epoch
    )


def swa_utils(schedules: Any) -> Any:
    return importlib.import_module(schedules.__name__.replace("lr_scheduler", "swa_utils"))


WARMUP = plain("LinearLR", start_factor=0.1, total_iters=10)
COSINE = plain("CosineAnnealingLR", T_max=60, eta_min=0.01)

SCHEDULES = [
    ScheduleCase("LambdaLR", plain("LambdaLR", lr_lambda=lambda epoch: 0.99**epoch)),
    ScheduleCase(
        "LambdaLR with one per group",
        plain("LambdaLR", lr_lambda=[lambda epoch: 1 / (epoch + 1), Halving()]),
    ),
    ScheduleCase("MultiplicativeLR", plain("MultiplicativeLR", lr_lambda=lambda epoch: 0.97)),
    ScheduleCase("StepLR", plain("StepLR", step_size=30, gamma=0.3)),
    ScheduleCase("MultiStepLR", plain("MultiStepLR", milestones=[80, 3, 30, 80], gamma=0.5)),
    ScheduleCase("ConstantLR", plain("ConstantLR", factor=0.3, total_iters=7)),
    ScheduleCase("LinearLR", plain("LinearLR", start_factor=0.2, end_factor=0.7, total_iters=90)),
    ScheduleCase("LinearLR with defaults", plain("LinearLR")),
    ScheduleCase("ExponentialLR", plain("ExponentialLR", gamma=0.95)),
    ScheduleCase("PolynomialLR", plain("PolynomialLR", total_iters=150, power=1.7)),
    ScheduleCase("CosineAnnealingLR", COSINE),
    ScheduleCase("CosineAnnealingLR to zero", plain("CosineAnnealingLR", T_max=200)),
    ScheduleCase("CosineAnnealingWarmRestarts", plain("CosineAnnealingWarmRestarts", T_0=7)),
    ScheduleCase(
        "CosineAnnealingWarmRestarts of growing rounds",
        plain("CosineAnnealingWarmRestarts", T_0=5, T_mult=2, eta_min=0.001),
    ),
    ScheduleCase("CyclicLR", cyclic(step_size_up=7)),
    ScheduleCase(
        "CyclicLR with shrinking cycles",
        cyclic(step_size_up=7, step_size_down=11, mode="triangular2"),
        "Adam",
    ),
    ScheduleCase(
        "CyclicLR of a power",
        cyclic(step_size_up=9, mode="exp_range", gamma=0.99, cycle_momentum=False),
    ),
    ScheduleCase(
        "CyclicLR of a function",
        cyclic(
            step_size_up=9,
            scale_fn=Halving(),
            scale_mode="iterations",
            base_momentum=0.5,
            max_momentum=[0.7, 0.6],
        ),
    ),
    ScheduleCase("OneCycleLR", one_cycle()),
    ScheduleCase(
        "OneCycleLR of lines",
        one_cycle(anneal_strategy="linear", pct_start=0.4, div_factor=10.0, final_div_factor=100.0),
        "Adam",
    ),
    ScheduleCase(
        "OneCycleLR of three phases",
        one_cycle(three_phase=True, total_steps=None, epochs=41, steps_per_epoch=5),
    ),
    ScheduleCase("OneCycleLR without momentum", one_cycle(cycle_momentum=False), "Adagrad"),
    ScheduleCase("SWALR", swa(anneal_epochs=30)),
    ScheduleCase("SWALR along a line", swa(anneal_epochs=150, anneal_strategy="linear")),
    ScheduleCase("SWALR at once", swa(anneal_epochs=0)),
    ScheduleCase("SequentialLR", sequence(WARMUP, COSINE, milestones=[10]), resumes=False),
    ScheduleCase(
        "SequentialLR of three",
        sequence(
            plain("ConstantLR", factor=0.1, total_iters=5),
            plain("StepLR", step_size=4, gamma=0.5),
            plain("CosineAnnealingWarmRestarts", T_0=9),
            milestones=[5, 40],
        ),
        resumes=False,
    ),
    ScheduleCase(
        "SequentialLR that starts with a chain",
        sequence(chain(WARMUP, plain("ExponentialLR", gamma=0.9)), COSINE, milestones=[12]),
        resumes=False,
    ),
    ScheduleCase(
        "ChainedScheduler", chain(WARMUP, plain("ExponentialLR", gamma=0.98)), resumes=False
    ),
    ScheduleCase(
        "ChainedScheduler of a sequence",
        chain(
            sequence(WARMUP, plain("ExponentialLR", gamma=0.9), milestones=[8]),
            plain("StepLR", step_size=20),
        ),
        resumes=False,
    ),
    ScheduleCase(
        "WarmupStableDecayLR",
        plain("WarmupStableDecayLR", warmup_iters=10, stable_iters=50, decay_iters=30),
        is_in_pytorch=False,
    ),
    ScheduleCase(
        "WarmupStableDecayLR along a cosine",
        plain(
            "WarmupStableDecayLR",
            warmup_iters=0,
            stable_iters=0,
            decay_iters=100,
            end_factor=0.1,
            decay="cosine",
        ),
        is_in_pytorch=False,
    ),
]

# epoch: group, learning rate that somebody sets by hand after it
BY_HAND = {25: (0, 0.7), 26: (1, 0.02), 110: (0, 0.05)}


def without_momentum(optimizer: Any) -> Any:
    del optimizer.defaults["momentum"]
    return optimizer


# What a constructor or a step refuses, here and in PyTorch.
REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "no optimizer": lambda s, o: s.ExponentialLR(3, 0.1),
    "no optimizer for CyclicLR": lambda s, o: s.CyclicLR(3, 0.1, 0.2),
    "no optimizer for OneCycleLR": lambda s, o: s.OneCycleLR(3, 0.1, 10),
    "no optimizer for ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(3),
    "last_epoch without initial_lr": lambda s, o: s.ExponentialLR(o, 0.1, last_epoch=3),
    "lambdas": lambda s, o: s.LambdaLR(o, [abs]),
    "multiplicative lambdas": lambda s, o: s.MultiplicativeLR(o, [abs, abs, abs]),
    "no function": lambda s, o: s.MultiplicativeLR(o, 3),
    "constant factor": lambda s, o: s.ConstantLR(o, 1.1),
    "negative constant factor": lambda s, o: s.ConstantLR(o, -0.1),
    "start factor": lambda s, o: s.LinearLR(o, 0.0),
    "start factor above 1": lambda s, o: s.LinearLR(o, 1.1),
    "end factor": lambda s, o: s.LinearLR(o, 0.5, -0.1),
    "T_0": lambda s, o: s.CosineAnnealingWarmRestarts(o, 0),
    "T_0 of a float": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2.5),
    "T_mult": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, 0),
    "eta_min": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, 1, "a"),
    "negative epoch": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2).step(-1),
    "base_lr": lambda s, o: s.CyclicLR(o, [0.1], 0.2),
    "max_lr": lambda s, o: s.CyclicLR(o, 0.1, [0.1, 0.2, 0.3]),
    "mode": lambda s, o: s.CyclicLR(o, 0.1, 0.2, mode="square"),
    "total_steps": lambda s, o: s.OneCycleLR(o, 0.1, 0),
    "total_steps of a float": lambda s, o: s.OneCycleLR(o, 0.1, 10.0),
    "no steps": lambda s, o: s.OneCycleLR(o, 0.1),
    "epochs": lambda s, o: s.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=3),
    "steps_per_epoch": lambda s, o: s.OneCycleLR(o, 0.1, epochs=2, steps_per_epoch=-3),
    "pct_start": lambda s, o: s.OneCycleLR(o, 0.1, 10, pct_start=1.1),
    "pct_start of an integer": lambda s, o: s.OneCycleLR(o, 0.1, 10, pct_start=1),
    "anneal_strategy": lambda s, o: s.OneCycleLR(o, 0.1, 10, anneal_strategy="square"),
    "max_lr of OneCycleLR": lambda s, o: s.OneCycleLR(o, [0.1], 10),
    "one step more": lambda s, o: [schedule.step() for schedule in [s.OneCycleLR(o, 1.0, 5)] * 7],
    "plateau factor": lambda s, o: s.ReduceLROnPlateau(o, factor=1.0),
    "plateau mode": lambda s, o: s.ReduceLROnPlateau(o, "middle"),
    "plateau threshold mode": lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="both"),
    "plateau min_lr": lambda s, o: s.ReduceLROnPlateau(o, min_lr=[0.1]),
    "swa_lr": lambda s, o: swa_utils(s).SWALR(o, [0.1]),
    "anneal_epochs": lambda s, o: swa_utils(s).SWALR(o, 0.1, -1),
    "anneal_epochs of a float": lambda s, o: swa_utils(s).SWALR(o, 0.1, 1.5),
    "swa strategy": lambda s, o: swa_utils(s).SWALR(o, 0.1, 1, "square"),
    "no schedule": lambda s, o: s.SequentialLR(o, [], []),
    "no schedule to chain": lambda s, o: s.ChainedScheduler([]),
    "milestones": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o)], [3]),
    "plateau in a sequence": lambda s, o: s.SequentialLR(o, [s.ReduceLROnPlateau(o)], []),
    "plateau in a chain": lambda s, o: s.ChainedScheduler([s.ReduceLROnPlateau(o)]),
    "no schedule in a sequence": lambda s, o: s.SequentialLR(o, [3], []),
    "no schedule in a chain": lambda s, o: s.ChainedScheduler([s.ConstantLR(o), 3]),
    "no momentum to cycle": lambda s, o: s.CyclicLR(without_momentum(o), 0.1, 0.2),
    "no momentum for one cycle": lambda s, o: s.OneCycleLR(without_momentum(o), 0.1, 10),
}
