"""One vector for each bag of indices."""

from typing import Any, Self

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource
from xbackprop.module import describe_layer
from xbackprop.nn.embedding.bags import find_bags, nan_unless
from xbackprop.nn.embedding.reductions import (
    bag_max_backward,
    bag_max_forward,
    bag_mean_backward,
    bag_mean_forward,
    bag_sum_backward,
    bag_sum_forward,
)
from xbackprop.nn.embedding.table import Table, table_shape

_MODES = ("sum", "mean", "max")


class EmbeddingBag(Table):
    """Sum, mean or maximum of the rows in each bag, ``y_b = sum over i in b of W[x_i]``.

    Parameters
    ----------
    num_embeddings : int
        Number of rows: indices go from 0 to one less.
    embedding_dim : int
        Length of each row.
    max_norm : float, optional
        A row with a greater norm is scaled to it when it is read, and stays so.
    norm_type : float, default 2.0
        Exponent of that norm.
    scale_grad_by_freq : bool, default False
        Divide each row's gradient by how often its index came; not with ``mode="max"``. (PyTorch's
        CPU kernel divides by the counts of other indices where they differ.)
    mode : {"mean", "sum", "max"}
        What becomes of the rows of a bag. A bag without rows gives zeros.
    sparse : bool, default False
        True is refused.
    _weight : array_like, shape (num_embeddings, embedding_dim), optional
        The first values, which are copied; host floats become float32 unless ``dtype`` says so.
    include_last_offset : bool, default False
        The last offset is the end of the last bag. What stands after it is in no bag. (PyTorch's
        mean and maximum count it in, its sum does not.)
    padding_idx : int, optional
        Index that is left out of its bag and of a mean's count; its row is zeros at first and
        receives no gradient.
    device : str or Device, optional
        Where the table lives; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the first values, ``N(0, 1)``.

    Attributes
    ----------
    weight : Parameter, shape (num_embeddings, embedding_dim)

    Raises
    ------
    IndexError
        In ``forward`` for an index out of range, where looking costs nothing (host arrays); on a
        device the output of its bag is NaN.
    ValueError
        In ``forward`` for offsets that do not start at 0, that fall, or that end behind the
        indices; on a device all output is NaN then.
    NotImplementedError
        For ``sparse=True``, and for ``per_sample_weights`` with another mode than "sum".

    Notes
    -----
    The derivatives are derived in :func:`bag_sum_forward`, :func:`bag_mean_forward` and
    :func:`bag_max_forward`; what ``max_norm`` does to the table in :class:`Embedding`. A NaN among
    the rows of a bag makes its maximum NaN; PyTorch's CPU kernel passes over a NaN that is not the
    bag's first.

    References
    ----------
    Joulin, Grave, Bojanowski, Mikolov, "Bag of tricks for efficient text classification", EACL
    2017, section 2.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"EmbeddingBag expects mode to be one of {_MODES}; got {mode!r}")
        if mode == "max" and scale_grad_by_freq:
            raise ValueError(
                "EmbeddingBag expects scale_grad_by_freq=False with mode='max', whose gradients "
                "are those of single rows"
            )
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            device,
            dtype,
            rng,
        )
        self.mode = mode
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> Self:
        """Make a layer of a table that is known.

        Parameters
        ----------
        embeddings : array_like, shape (num_embeddings, embedding_dim)
            The table, which is copied.
        freeze : bool, default True
            Leave it as it is in training.
        max_norm, norm_type, scale_grad_by_freq, mode, sparse, include_last_offset
            See :class:`EmbeddingBag`.
        padding_idx, device, dtype
            See :class:`EmbeddingBag`.

        Returns
        -------
        EmbeddingBag

        Raises
        ------
        ValueError
            For embeddings that are no matrix.
        """
        layer = cls(
            *table_shape(cls.__name__, embeddings),
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            mode=mode,
            sparse=sparse,
            _weight=embeddings,
            include_last_offset=include_last_offset,
            padding_idx=padding_idx,
            device=device,
            dtype=dtype,
        )
        layer.weight.requires_grad = not freeze
        return layer

    def forward(
        self, x: Array, offsets: Array | None = None, per_sample_weights: Array | None = None
    ) -> tuple[Array, Any]:
        """Map bags of indices to rows ``(bags, embedding_dim)``.

        Parameters
        ----------
        x : array of int, shape (bags, length) or (n,)
            A bag in each row; or all bags one after the other.
        offsets : array of int, shape (bags,), optional
            With one axis only: where each bag begins.
        per_sample_weights : array of float, shape of ``x``, optional
            A factor of each row, with ``mode="sum"`` only.

        Returns
        -------
        output : array, shape (bags, embedding_dim)
        saved
        """
        indices = self.check_indices("x", x)
        bags = find_bags(self, indices, offsets, self.include_last_offset)
        self._check_factors(x, per_sample_weights)
        table = self.read_table(indices)
        shape, indices = indices.shape, indices.reshape(-1)
        numbers, num_bags = bags.numbers, bags.num_bags
        if self.padding_idx is not None:  # no bag has it
            xp = get_array_module(indices)
            numbers = xp.where(indices == self.padding_idx, num_bags, numbers)
        arguments = (table, indices, numbers, num_bags)
        if self.mode == "max":
            output, saved = bag_max_forward(*arguments)
        elif self.mode == "mean":
            output, saved = bag_mean_forward(*arguments)
        elif per_sample_weights is None:
            output, saved = bag_sum_forward(*arguments)
        else:
            output, saved = bag_sum_forward(*arguments, per_sample_weights.reshape(-1))
        given = 1 if offsets is None else 2
        given = given if per_sample_weights is None else 3
        return nan_unless(bags.is_valid, output), (saved, shape, given)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Add the table's gradient; return that of ``per_sample_weights``, None for indices."""
        inner, shape, given = saved
        has_weight_grad = self.weight.requires_grad
        grad_weight = grad_factors = None
        if self.mode == "sum":
            wanted = (self.scale_grad_by_freq, has_weight_grad)
            grad_weight, grad_factors = bag_sum_backward(grad_output, *inner, *wanted)
        elif has_weight_grad and self.mode == "mean":
            grad_weight = bag_mean_backward(grad_output, *inner, self.scale_grad_by_freq)
        elif has_weight_grad:
            grad_weight = bag_max_backward(grad_output, *inner)
        if grad_weight is not None:
            self.weight.accumulate(grad_weight)
        if not input_grad or given == 1:
            return None
        if grad_factors is None:
            return None, None
        return None, None, grad_factors.reshape(shape)

    def _check_factors(self, x: Array, per_sample_weights: Any) -> None:
        if per_sample_weights is None:
            return
        layer = describe_layer(self)
        if self.mode != "sum":
            raise NotImplementedError(
                f"{layer}: per_sample_weights with mode={self.mode!r}; PyTorch has them with "
                "mode='sum' only"
            )
        self.check_input("per_sample_weights", per_sample_weights, self.weight.value)
        if per_sample_weights.shape != x.shape:
            raise ValueError(
                f"{layer} expects per_sample_weights of the shape of x, {x.shape}; "
                f"got {per_sample_weights.shape}"
            )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = [f"{self.num_embeddings}, {self.embedding_dim}"]
        if self.max_norm is not None:
            shown.append(f"max_norm={self.max_norm}")
        if self.norm_type != 2:
            shown.append(f"norm_type={self.norm_type}")
        if self.scale_grad_by_freq:
            shown.append(f"scale_grad_by_freq={self.scale_grad_by_freq}")
        shown.append(f"mode={self.mode!r}")
        if self.padding_idx is not None:
            shown.append(f"padding_idx={self.padding_idx}")
        return ", ".join(shown)
