"""Modules in a list or a dict, for composites that call them as they like."""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from xbackprop.initializers import RandomSource
from xbackprop.module import Module
from xbackprop.nn.containers.sequence import (
    ModuleSequence,
    check_module,
    numbered,
    record_arguments,
    reset_children,
)


class ModuleList(ModuleSequence):
    """A list of modules, with the methods of a list; it has no forward of its own.

    Parameters
    ----------
    modules : iterable of Module, optional
        In order.
    rng : Generator, int or None
        When given, the modules draw their initial values anew, each from a stream of its own.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layers = xb.nn.ModuleList([xb.nn.Linear(2, 2), xb.nn.ReLU()])
    >>> layers.append(xb.nn.Linear(2, 1))
    ModuleList(
      (0): Linear(2, 2, bias=True)
      (1): ReLU()
      (2): Linear(2, 1, bias=True)
    )
    """

    samples_apart = True

    def __init__(
        self, modules: Iterable[Module] | None = None, *, rng: RandomSource = None
    ) -> None:
        listed = [] if modules is None else list(modules)
        super().__init__(numbered(listed), rng)
        record_arguments(self, *self.as_arguments())  # an iterator is empty by now

    def as_arguments(self) -> tuple[Any, ...]:
        """Return the one argument, a list."""
        return (list(self._order),)

    def __getitem__(self, index: int | slice) -> Any:
        return ModuleList(self._order[index]) if isinstance(index, slice) else self._order[index]

    def __add__(self, other: Iterable[Module]) -> "ModuleList":
        return ModuleList([*self, *other])


class ModuleDict(Module):
    """Modules by name, with the methods of a dict; it has no forward of its own.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of pairs, optional
        Names are not empty and have no dot, which stands between the parts of a path.
    rng : Generator, int or None
        When given, the modules draw their initial values anew, each from a stream of its own.

    Examples
    --------
    >>> import xbackprop as xb
    >>> heads = xb.nn.ModuleDict({"left": xb.nn.Linear(2, 1), "right": xb.nn.Linear(2, 1)})
    >>> list(heads), "left" in heads
    (['left', 'right'], True)
    """

    def __init__(
        self,
        modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None,
        *,
        rng: RandomSource = None,
    ) -> None:
        self._layers: dict[str, Module] = {}
        self.update({} if modules is None else modules)
        if rng is not None:
            self.reset_parameters(rng)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the children's initial values anew, each from its own stream."""
        reset_children(tuple(self._layers.values()), rng)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules with their names."""
        yield from self._layers.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Take modules from a mapping or pairs; all are checked before one is taken."""
        taken = dict(modules)
        for name, module in taken.items():
            check_module("ModuleDict", name, module)
        self._hold(self._layers | taken)

    def pop(self, key: str) -> Module:
        """Take a module out and return it."""
        kept = dict(self._layers)
        module = kept.pop(key)
        self._hold(kept)
        return module

    def clear(self) -> None:
        """Take all modules out."""
        self._hold({})

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._layers.keys()

    def values(self) -> ValuesView[Module]:
        """Return the modules."""
        return self._layers.values()

    def items(self) -> ItemsView[str, Module]:
        """Return the pairs of names and modules."""
        return self._layers.items()

    def _hold(self, named: dict[str, Module]) -> None:
        """Hold these modules from now on; ``config`` follows."""
        self._layers = named
        record_arguments(self, dict(named))

    def __getitem__(self, key: str) -> Module:
        return self._layers[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.update({key: module})

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __contains__(self, key: object) -> bool:
        return key in self._layers

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)
