"""Linear whose number of inputs the first forward tells."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator, float_dtype
from xbackprop.module import UninitializedParameter, create_parameter, read_parameter
from xbackprop.nn.linear import Linear, accumulate_gradients, linear_forward


class LazyLinear(Linear):
    """A :class:`Linear` that takes ``in_features`` from its first input.

    Parameters
    ----------
    out_features : int
        Length of the last axis of the output.
    bias : bool, default True
        False leaves ``b`` out.
    device : str or Device, optional
        Where the parameters will live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the seed of the initial values, now; the values are drawn at the first forward.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
    bias : Parameter, shape (out_features,), or None

    Notes
    -----
    ``in_features`` is 0 until it is known.
    Until the first forward, or until ``load_state_dict`` brings values, both parameters are
    uninitialized: ``state_dict`` holds arrays without elements, and an optimizer refuses them. Run
    one forward before making it. A forward that fails creates nothing.
    """

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        if out_features < 0:
            raise ValueError(f"LazyLinear expects out_features >= 0; got {out_features}")
        self.out_features = out_features
        chosen = float_dtype(dtype)
        self.weight: Any = UninitializedParameter((out_features, None), device, chosen)
        self.bias: Any = None
        if bias:
            self.bias = UninitializedParameter((out_features,), device, chosen)
        self._seed = _draw_seed(rng)

    @property
    def in_features(self) -> int:
        """Length of the last axis of the input; 0 until it is known."""
        length: int = self.weight.shape[1]
        return length

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, or the seed they will be drawn from."""
        self._seed = _draw_seed(rng)
        if not self._is_uninitialized():
            super().reset_parameters(self._seed)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if not self._is_uninitialized():
            return super().forward(x)
        x = self.check_input("x", x, self.weight.data)
        if x.ndim == 0:
            raise ValueError(self.explain_shape(x.shape, "in_features"))
        self._create(x.shape[-1])
        weight, bias = self._current()
        if weight.shape[1] != x.shape[-1]:
            raise ValueError(self.explain_shape(x.shape, weight.shape[1]))
        return linear_forward(x, weight.value, None if bias is None else bias.value)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add ``g^T x`` and ``sum of g``; return ``g W``."""
        return accumulate_gradients(*self._current(), grad_output, saved, input_grad)

    def _is_uninitialized(self) -> bool:
        return any(type(part) is UninitializedParameter for part in (self.weight, self.bias))

    def _current(self) -> tuple[Any, Any]:
        """Return weight and bias as the running call sees them."""
        bias = None if self.bias is None else read_parameter(self, "bias")
        return read_parameter(self, "weight"), bias

    def _create(self, in_features: int) -> None:
        """Draw what is uninitialized still, as a Linear does; always the same values."""
        fresh = Linear(
            in_features,
            self.out_features,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
            rng=self._seed,
        )
        for name, parameter in fresh.own_parameters():
            if type(read_parameter(self, name)) is UninitializedParameter:
                create_parameter(self, name, parameter.data)


def _draw_seed(rng: RandomSource) -> int:
    # A number, not the generator: a forward that is refused must not move the generator on.
    return int(as_generator(rng).integers(1 << 63))
