"""Momentum that a schedule moves along with the learning rate."""

from collections.abc import Sequence

from xbackprop.optim.optimizer import Optimizer


def start_momentum(
    optimizer: Optimizer, lowest: Sequence[float], highest: Sequence[float], *, is_new: bool
) -> bool:
    """Set the groups' momentum to its highest, and tell whether it is ``betas[0]``."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError(
            "cycle_momentum expects an optimizer with momentum or betas; "
            f"{type(optimizer).__name__} has neither. Pass cycle_momentum=False."
        )
    use_beta1 = "betas" in optimizer.defaults
    if is_new:
        set_momentum(optimizer, highest, use_beta1=use_beta1)
        for base, most, group in zip(lowest, highest, optimizer.param_groups, strict=True):
            group["max_momentum"] = most
            group["base_momentum"] = base
    return use_beta1


def set_momentum(optimizer: Optimizer, momentums: Sequence[float], *, use_beta1: bool) -> None:
    """Set the momentum of each group, which may be ``betas[0]``."""
    for momentum, group in zip(momentums, optimizer.param_groups, strict=True):
        if use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum
