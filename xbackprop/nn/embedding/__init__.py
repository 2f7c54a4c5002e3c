"""Tables of vectors: one row for each index, or one result for each bag of indices."""

from xbackprop.nn.embedding.bag import EmbeddingBag
from xbackprop.nn.embedding.embedding import Embedding

__all__ = ["Embedding", "EmbeddingBag"]
