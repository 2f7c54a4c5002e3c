"""Running a part of a network twice, to keep less."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.initializers import RandomSource
from xbackprop.module import Module, current_frame, inference, replay, saving


class Recompute(Module):
    """Run a module without saving, and run it again in the backward: less memory, more time.

    Parameters
    ----------
    module : Module
        The part of a network whose activations are not kept.

    Notes
    -----
    The second run sees the random counters of the first, so dropout masks agree; the updates of
    running state that it makes are discarded.

    References
    ----------
    Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016.
    """

    def __init__(self, module: Module) -> None:
        self.module = module

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the inner module's initial values anew."""
        if hasattr(self.module, "reset_parameters"):
            self.module.reset_parameters(rng)

    def forward(self, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        """Return the module's output; save its inputs only."""
        state = {} if current_frame().inference else self._state_before()
        with inference():
            output, _ = self.module.forward(*inputs, **options)
        return output, (inputs, options, state)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Run forward again, then backward."""
        inputs, options, state = saved
        with replay(state), saving():
            _, inner = self.module.forward(*inputs, **options)
        return self.module.backward(grad_output, inner, input_grad=input_grad)

    def _state_before(self) -> dict[tuple[int, str], tuple[Module, str, Array]]:
        """Copy the buffers that this forward will read, as this call sees them."""
        state = {}
        for module in self.module.modules():
            for persistent in (True, False):
                for name, _ in module.own_buffers(persistent=persistent):
                    array = module.read_buffer(name).copy()
                    state[id(module), name] = (module, name, array)
        return state
