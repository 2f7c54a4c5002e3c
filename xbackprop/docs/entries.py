"""What the catalogue lists: every public layer, loss, optimizer and schedule, by family.

Names come from ``nn.catalogue()`` and ``optim.__all__``; families of layers are the comments
between the rows of ``nn/__init__.py``, families of ``optim`` the modules.
"""

import inspect
import re
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import xbackprop as xb


@dataclass(frozen=True)
class Entry:
    """One public name."""

    name: str
    family: str
    value: Any

    @property
    def path(self) -> str:
        """Where a user finds it."""
        _, package, *inside = self.value.__module__.split(".")
        # A part of optim that is public itself, as lr_scheduler is, has its names below it.
        if package == "optim" and isinstance(public(xb.optim).get(inside[0]), ModuleType):
            return f"xbackprop.optim.{inside[0]}.{self.name}"
        return f"xbackprop.{package}.{self.name}"

    @property
    def is_base(self) -> bool:
        """Tell whether it is there to be subclassed."""
        if issubclass_of(self.value, xb.Module):
            return self.value.forward is xb.Module.forward
        return (
            isinstance(self.value, type)
            and self.value.__subclasses__() != []
            and (self.value.__bases__ == (object,))
        )


def entries() -> list[Entry]:
    """Return all of them, family by family, each in the order of its ``__all__``."""
    families = nn_families()
    found = [Entry(name, families[name], cls) for name, cls in xb.nn.catalogue().items()]
    for name, value in public(xb.optim).items():
        if isinstance(value, ModuleType):
            found += [Entry(n, optim_family(v), v) for n, v in public(value).items()]
        else:
            found.append(Entry(name, optim_family(value), value))
    found = list({entry.path: entry for entry in found}.values())  # StepLR stands in two places
    order = list(dict.fromkeys(entry.family for entry in found))
    return sorted(found, key=lambda entry: order.index(entry.family))


def public(module: ModuleType) -> dict[str, Any]:
    """Return what a module offers: its ``__all__``, else the classes and functions it defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if isinstance(value, (type, FunctionType))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    return {name: getattr(module, name) for name in names}


def nn_families() -> dict[str, str]:
    """Return the comment under which each name of ``nn.__all__`` stands."""
    rows = inspect.getsource(xb.nn).partition("__all__ = [")[2].partition("]")[0]
    found, family = {}, ""
    for comment, name in re.findall(r"^ *(?:# (.+)|\"(\w+)\",?)$", rows, re.M):
        family = comment or family
        if name:
            found[name] = family
    return found


def optim_family(value: Any) -> str:
    """Return "optimizers", a title for a part of ``optim``, or the file."""
    if issubclass_of(value, xb.optim.Optimizer):
        return "optimizers"
    place = value.__module__.split(".")[2]
    return {"lr_scheduler": "schedules", "swa_utils": "weight averaging"}.get(place, place)


def issubclass_of(value: Any, cls: type) -> bool:
    """Tell whether ``value`` is a class below ``cls``."""
    return isinstance(value, type) and issubclass(value, cls)
