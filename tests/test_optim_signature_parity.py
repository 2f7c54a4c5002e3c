"""Names, order and defaults of all arguments beside PyTorch's, and what constructors refuse.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

import inspect
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb

pytestmark = pytest.mark.torch_parity

OPTIMIZERS = (
    "SGD Adam AdamW NAdam RAdam Adamax Adadelta Adagrad RMSprop Rprop ASGD Adafactor Muon LBFGS"
).split()
SCHEDULES = (
    "LambdaLR MultiplicativeLR StepLR MultiStepLR ConstantLR LinearLR ExponentialLR PolynomialLR "
    "CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR OneCycleLR ReduceLROnPlateau "
    "SequentialLR ChainedScheduler LRScheduler"
).split()
AVERAGES = (
    "AveragedModel SWALR update_bn get_ema_avg_fn get_ema_multi_avg_fn get_swa_avg_fn "
    "get_swa_multi_avg_fn"
).split()
CLIPPING = "clip_grad_norm_ clip_grad_value_ clip_grads_with_norm_ get_total_norm".split()


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str, torch: Any) -> None:
    ours, theirs = getattr(xb.optim, name), getattr(torch.optim, name)
    assert arguments(ours) == arguments(theirs)
    weight, their_weight = xb.Parameter(np.ones((1, 1))), torch.nn.Parameter(torch.ones(1, 1))
    assert ours([weight]).defaults == theirs([their_weight]).defaults


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, torch: Any) -> None:
    theirs = getattr(torch.optim.lr_scheduler, name)
    assert arguments(getattr(xb.optim.lr_scheduler, name)) == arguments(theirs)


@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name: str, torch: Any) -> None:
    theirs = getattr(torch.optim.swa_utils, name)
    assert arguments(getattr(xb.optim.swa_utils, name)) == arguments(theirs)


@pytest.mark.parametrize("name", CLIPPING)
def test_clipping(name: str, torch: Any) -> None:
    theirs = getattr(torch.nn.utils.clip_grad, name, None) or getattr(torch.nn.utils, name)
    assert arguments(getattr(xb.optim, name)) == arguments(theirs)


def test_nothing_of_pytorch_is_forgotten(torch: Any) -> None:
    names = {n for n, v in vars(torch.optim).items() if isinstance(v, type)} - {"Optimizer"}
    assert names - set(OPTIMIZERS) == {"SparseAdam"}  # there are no sparse gradients here
    assert set(torch.optim.lr_scheduler.__all__) == set(SCHEDULES)
    assert set(torch.optim.swa_utils.__all__) == set(AVERAGES)


NEGATIVE = {
    "lr": OPTIMIZERS,
    "weight_decay": [n for n in OPTIMIZERS if n not in ("Rprop", "LBFGS")],
    "eps": "Adam AdamW NAdam RAdam Adamax Adadelta Adagrad RMSprop".split(),
    "momentum": ["SGD", "RMSprop", "Muon"],
    "momentum_decay": ["NAdam"],
    "lr_decay": ["Adagrad"],
    "initial_accumulator_value": ["Adagrad"],
    "alpha": ["RMSprop"],
    "rho": ["Adadelta"],
}
BETAS = "Adam AdamW NAdam RAdam Adamax".split()
REFUSED = [
    *((name, {option: -0.1}) for option, names in NEGATIVE.items() for name in names),
    *((name, {"lr": float("nan")}) for name in OPTIMIZERS if name != "SGD"),
    *((name, {"betas": (1.0, 0.9)}) for name in BETAS),
    *((name, {"betas": (0.9, -0.1)}) for name in BETAS),
    ("Adam", {"betas": (0, 0.9)}),
    ("AdamW", {"betas": (0.9, 0)}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("Adadelta", {"rho": 1.1}),
    ("Rprop", {"etas": (0.0, 1.2)}),
    ("Rprop", {"etas": (0.5, 1.0)}),
    ("Rprop", {"etas": (1.0, 1.2)}),
    ("Adafactor", {"beta2_decay": 0.1}),
    ("Adafactor", {"eps": (-1.0, 1e-3)}),
    ("Adafactor", {"eps": (None, -1e-3)}),
    ("Adafactor", {"d": 0.9}),
    ("Muon", {"adjust_lr_fn": "other"}),
    *((name, {"fused": True, "foreach": True}) for name in ("SGD", "Adam", "AdamW", "Adagrad")),
]


@pytest.mark.parametrize(("name", "options"), REFUSED)
def test_options_that_pytorch_refuses_are_refused(
    name: str, options: dict[str, Any], torch: Any
) -> None:
    errors = []
    for library in (xb, torch):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            getattr(library.optim, name)(weights(library, (1, 1)), **options)
        errors.append(type(caught.value))
    assert errors[0] is errors[1]


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_muon_takes_matrices_only(shape: tuple[int, ...], torch: Any) -> None:
    for library in (xb, torch):
        with pytest.raises(ValueError, match="Muon"):
            library.optim.Muon(weights(library, shape))


def weights(library: Any, shape: tuple[int, ...]) -> list[Any]:
    if library is xb:
        return [xb.Parameter(np.ones(shape))]
    return [library.nn.Parameter(library.ones(shape))]
