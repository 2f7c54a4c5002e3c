"""A table of vectors, one for each index."""

import math
from typing import Any, Self

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.initializers import RandomSource
from xbackprop.nn.embedding.rows import gradient_of_rows, read_rows
from xbackprop.nn.embedding.table import Table, table_shape


@op(formula="output = weight[indices]", flops=lambda *_: 0)
def embedding_forward(indices: Array, weight: Array) -> tuple[Array, Any]:
    """Read a row of the table for each index.

    Parameters
    ----------
    indices : array of int64, shape (...)
        Which rows.
    weight : array, shape (num_embeddings, embedding_dim)
        The table.

    Returns
    -------
    output : array, shape (..., embedding_dim)
        NaN for an index out of range.
    saved : (indices, num_embeddings)

    Notes
    -----
    With one-hot rows ``H``, ``H[i, v] = 1`` where ``v`` is the index at ``i``, this is the linear
    map ``y = H W``. So ``dLoss/dW = H^T g``: the gradients of all places that read a row add up.
    """
    return read_rows(weight, indices), (indices, weight.shape[0])


@op(
    formula="grad_weight = (arange(num_embeddings)[:, None] == indices.reshape(-1)) "
    "@ grad_output.reshape(indices.size, grad_output.shape[-1])",
    flops=lambda grad_output, *_: math.prod(grad_output.shape),  # each row is added once
)
def embedding_backward(
    grad_output: Array,
    indices: Array,
    num_embeddings: int,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
) -> Array:
    """Return ``H^T g``: zeros for ``padding_idx``, a mean where it is scaled by frequency."""
    grad_rows = grad_output.reshape(indices.size, grad_output.shape[-1])
    flat = indices.reshape(-1)
    if padding_idx is not None:  # its rows go where no row of the table is
        flat = get_array_module(flat).where(flat == padding_idx, num_embeddings, flat)
    return gradient_of_rows(grad_rows, flat, num_embeddings, scale_grad_by_freq)


class Embedding(Table):
    """A table of vectors, one for each index, ``y = W[x]``.

    Parameters
    ----------
    num_embeddings : int
        Number of rows: indices go from 0 to one less.
    embedding_dim : int
        Length of each row.
    padding_idx : int, optional
        Index whose row is zeros at first and receives no gradient; may count from the end.
    max_norm : float, optional
        A row with a greater norm is scaled to it when it is read, and stays so.
    norm_type : float, default 2.0
        Exponent of that norm.
    scale_grad_by_freq : bool, default False
        Divide each row's gradient by how often its index came.
    sparse : bool, default False
        True is refused.
    _weight : array_like, shape (num_embeddings, embedding_dim), optional
        The first values, which are copied; host floats become float32 unless ``dtype`` says so.
    _freeze : bool, default False
        True leaves the table as it is: no gradient.
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
        device its output is NaN.
    NotImplementedError
        For ``sparse=True``.

    Notes
    -----
    The derivative is derived in :func:`embedding_forward`. Its sums are deterministic: sorted by
    index, then added pair by pair.

    With ``max_norm`` the forward changes the table, in evaluation too: a row ``w`` with
    ``|w| > max_norm`` becomes ``w max_norm / (|w| + 1e-7)``. No gradient is taken of that. The new
    values are the parameter's once the outermost forward has succeeded, or the optimizer's step
    that runs inside of it begins; a refused or skipped batch leaves the table as it was.

    References
    ----------
    Bengio, Ducharme, Vincent, Jauvin, "A neural probabilistic language model", JMLR 3 (2003),
    section 2.
    """

    in_half = "products"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
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
        self.weight.requires_grad = not _freeze

    @property
    def samples_apart(self) -> bool:
        """Whether neither values nor gradients depend on which other indices there are."""
        return self.max_norm is None and not self.scale_grad_by_freq

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
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
        padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, device, dtype
            See :class:`Embedding`.

        Returns
        -------
        Embedding

        Raises
        ------
        ValueError
            For embeddings that are no matrix.
        """
        return cls(
            *table_shape(cls.__name__, embeddings),
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=embeddings,
            _freeze=freeze,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Map indices ``(...)`` to rows ``(..., embedding_dim)``."""
        indices = self.check_indices("x", x)
        return embedding_forward(indices, self.read_table(indices))

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> None:
        """Add ``H^T g``; indices have no gradient."""
        if self.weight.requires_grad:
            options = (self.padding_idx, self.scale_grad_by_freq)
            self.weight.accumulate(embedding_backward(grad_output, *saved, *options))

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = [f"{self.num_embeddings}, {self.embedding_dim}"]
        if self.padding_idx is not None:
            shown.append(f"padding_idx={self.padding_idx}")
        if self.max_norm is not None:
            shown.append(f"max_norm={self.max_norm}")
        if self.norm_type != 2:
            shown.append(f"norm_type={self.norm_type}")
        if self.scale_grad_by_freq:
            shown.append(f"scale_grad_by_freq={self.scale_grad_by_freq}")
        return ", ".join(shown)
