"""L-BFGS: the optimizer, and the line search it may use."""

from xbackprop.optim.lbfgs.optimizer import LBFGS

__all__ = ["LBFGS"]
