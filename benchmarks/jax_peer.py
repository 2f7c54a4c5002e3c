"""JAX under jit: one compiled step whose buffers are donated, with optax's optimizers."""

from collections.abc import Callable
from typing import Any


def trained(
    apply: Callable[[Any, dict[str, Any], Any], Any],
    weights: dict[str, Any],
    x: Any,
    y: Any,
    *,
    optimizer: str = "adam",
    **options: Any,
) -> Callable[[], Any]:
    """Return a step of cross-entropy on ``apply(jax, weights, x)``."""
    import functools

    import jax
    import optax

    updates = getattr(optax, optimizer)(**options)
    held = {name: jax.numpy.array(array) for name, array in weights.items()}
    state = updates.init(held)
    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)

    def loss_of(held: Any, x: Any, y: Any) -> Any:
        logits = apply(jax, held, x)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(held: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(held, x, y)
        changes, state = updates.update(grads, state, held)
        return loss, optax.apply_updates(held, changes), state

    def step() -> Any:
        nonlocal held, state
        loss, held, state = update(held, state, x, y)
        return loss

    return step


def inferred(
    apply: Callable[[Any, dict[str, Any], Any], Any], weights: dict[str, Any], x: Any
) -> Callable[[], Any]:
    """Return an inference of the network on ``x``."""
    import jax

    held = {name: jax.numpy.array(array) for name, array in weights.items()}
    compiled = jax.jit(lambda held, x: apply(jax, held, x))
    x = jax.numpy.asarray(x)
    return lambda: compiled(held, x)


def wait(result: Any) -> None:
    """Wait until a result is there: JAX answers before it has computed."""
    result.block_until_ready()
