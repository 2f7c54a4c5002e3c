"""Running a part of a network twice, to keep less."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.initializers import RandomSource
from xbackprop.module import Module, Parameter, current_frame, inference, replay, saving


class Recompute(Module):
    """Run a module without saving, and run it again in the backward: less memory, more time.

    Parameters
    ----------
    module : Module
        The part of a network whose activations are not kept.

    Notes
    -----
    The second run sees the random counters and the parameters of the first, so dropout masks agree
    and embeddings have the same norms; the updates that it makes are discarded.

    References
    ----------
    Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016.
    """

    samples_apart = True

    def __init__(self, module: Module) -> None:
        self.module = module

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the inner module's initial values anew."""
        if hasattr(self.module, "reset_parameters"):
            self.module.reset_parameters(rng)

    def forward(self, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        """Return the module's output; save its inputs only."""
        before = ({}, []) if current_frame().inference else self._state_before()
        with inference():
            output, _ = self.module.forward(*inputs, **options)
        return output, (inputs, options, *before)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Run forward again, then backward."""
        inputs, options, state, values = saved
        with replay(state, values), saving():
            _, inner = self.module.forward(*inputs, **options)
        return self.module.backward(grad_output, inner, input_grad=input_grad)

    def _state_before(
        self,
    ) -> tuple[dict[tuple[int, str], tuple[Module, str, Array]], list[tuple[Parameter, Array]]]:
        """Copy the buffers that this forward will read, as this call sees them.

        Parameters need no copy: what writes into their arrays makes this backward stale.
        """
        state = {}
        for module in self.module.modules():
            for persistent in (True, False):
                for name, _ in module.own_buffers(persistent=persistent):
                    array = module.read_buffer(name).copy()
                    state[id(module), name] = (module, name, array)
        parameters = self.module.parameters()
        return state, [(p, p.value) for p in parameters if isinstance(p, Parameter)]
