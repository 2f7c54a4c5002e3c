"""The direction of L-BFGS, from the pairs of changes that are kept."""

from xbackprop.backend.array_module import Array


def two_loops(
    grad: Array, changes: list[Array], steps: list[Array], inverses: list[float], scale: float
) -> Array:
    """Return ``-H grad`` by the two-loop recursion (algorithm 7.4)."""
    pairs = list(zip(changes, steps, inverses, strict=True))
    direction = -grad
    weights = []
    for change, step, inverse in reversed(pairs):
        weight = step.dot(direction) * inverse
        weights.append(weight)
        direction -= change * weight
    direction *= scale
    for change, step, inverse in pairs:
        direction += step * (weights.pop() - change.dot(direction) * inverse)
    return direction
