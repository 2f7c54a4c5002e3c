"""What containers of modules in an order share: the list, and its methods."""

import operator
from collections.abc import Iterable, Iterator
from typing import Any, Self

from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module, Parameter, UninitializedParameter


class ModuleSequence(Module):
    """Modules in an order, numbered or named, with the methods of a list.

    Parameters
    ----------
    named : dict of str to Module
        The modules by their names in ``state_dict``.
    rng : Generator, int or None
        When given, the modules draw their initial values anew, each from a stream of its own.
    """

    _layers: dict[str, Module]
    _order: tuple[Module, ...]

    def __init__(self, named: dict[str, Any], rng: RandomSource) -> None:
        for name, module in named.items():
            check_module(type(self).__name__, name, module)
        self._layers = named
        self._order = tuple(named.values())
        if rng is not None:
            self.reset_parameters(rng)

    def as_arguments(self) -> tuple[Any, ...]:
        """Return the positional arguments that would make this container anew."""
        return self._order

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the children's initial values anew, each from its own stream."""
        reset_children(self._order, rng)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules with their names."""
        yield from self._layers.items()

    def append(self, module: Module) -> Self:
        """Put a module at the end; return the container."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Put modules at the end; return the container. All are checked before one is taken."""
        named = dict(self._layers)
        for module in list(modules):
            name = str(len(named))
            if name in named:
                raise ValueError(f"{type(self).__name__} has a module {name!r} already")
            named[name] = module
        self._hold(named)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before a position, 0 to the length; a negative one counts from the end."""
        if not -len(self) <= index <= len(self):
            raise IndexError(f"{type(self).__name__}.insert: {index} is out of range")
        modules = list(self._order)
        modules.insert(index, module)
        self._hold(numbered(modules))
        return self

    def pop(self, index: int | slice) -> Any:
        """Take a module out and return it; the others are numbered anew."""
        taken = self[index]
        del self[index]
        return taken

    def _hold(self, named: dict[str, Module]) -> None:
        """Hold these modules from now on; ``config`` follows."""
        for name, module in named.items():
            check_module(type(self).__name__, name, module)
        self._layers = named
        self._order = tuple(named.values())
        record_arguments(self, *self.as_arguments())

    def __setitem__(self, index: int, module: Module) -> None:
        name = list(self._layers)[operator.index(index)]
        self._hold(self._layers | {name: module})

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self._order)
        del modules[index]
        self._hold(numbered(modules))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            raise TypeError(f"{type(self).__name__} has no slices")
        return self._order[index]

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._order)

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)


def record_arguments(container: Module, *arguments: Any) -> None:
    """Let ``config`` describe what a container holds now, not what it was made with.

    A subclass with a constructor of its own is described by what that was called with.
    """
    if type(container).__init__.__module__.startswith(__package__):
        _, options = container.__dict__["_constructor_arguments"]
        kept = {name: value for name, value in options.items() if name not in ("modules", "rng")}
        container.__dict__["_constructor_arguments"] = (arguments, kept)


def numbered(modules: Iterable[Module]) -> dict[str, Module]:
    """Name modules by their positions."""
    return {str(position): module for position, module in enumerate(modules)}


def check_module(container: str, name: str, value: Any) -> None:
    """Refuse what is no module, and names that would not make a path."""
    if not isinstance(name, str):
        raise TypeError(f"{container} expects names as str; got {type(name).__name__}")
    if not name or "." in name:  # dots join names to paths
        raise ValueError(f"{container} expects names without a dot, not empty; got {name!r}")
    if not isinstance(value, Module):
        hint = "; call it to make a layer" if isinstance(value, type) else ""
        which = name if name.isdigit() else repr(name)
        raise TypeError(
            f"{container} expects modules; argument {which} is {type(value).__name__}{hint}"
        )


def reset_children(modules: tuple[Module, ...], rng: RandomSource) -> None:
    """Draw initial values anew, each module's from a stream of its own."""
    streams = as_generator(rng).spawn(len(modules))
    for module, stream in zip(modules, streams, strict=True):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(stream)


def has_parameters(module: Module) -> bool:
    """Tell whether a module or anything below it has parameters; asked in every step."""
    for value in vars(module).values():
        if value.__class__ is Parameter or value.__class__ is UninitializedParameter:
            return True
    return any(has_parameters(child) for child in module.children())
