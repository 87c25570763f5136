"""Instance discrimination: tell every patch of the training set from all others."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastmri_ufloss.checks import check, check_at_least_one, require

__all__ = ["MemoryBank", "instance_discrimination_loss"]


class MemoryBank(nn.Module):
    """The last feature of every patch of the training set, V (N x d), rows of unit l2 norm.

    V is the buffer ``vectors``, and is never trained. The first rows are random and depend on ``seed`` only. N,
    ``num_patches``, and d, ``num_features``, are at least 1, ValueError otherwise.

    Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018.
    """

    vectors: Tensor

    def __init__(self, num_patches: int, num_features: int, *, seed: int = 0) -> None:
        super().__init__()
        check_at_least_one(num_patches=num_patches, num_features=num_features)
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(num_patches, num_features, generator=generator)
        self.register_buffer("vectors", F.normalize(vectors, dim=1))

    @torch.no_grad()
    def update(self, indices: Tensor, features: Tensor) -> None:
        """Overwrite rows, their indices (batch,) int64 and below N, with features (batch, d), which are normalized.

        There is no momentum, and no gradient flows; where an index is repeated the last row counts.
        """
        _check(features, indices, self)
        # repeated indices make index_copy_ depend on the order of threads; rows would differ between ranks
        sorted_indices, order = indices.sort(stable=True)
        last = torch.searchsorted(sorted_indices, sorted_indices, right=True) - 1
        rows = F.normalize(features.detach().to(self.vectors.dtype), dim=1)
        self.vectors.index_copy_(0, sorted_indices, rows[order[last]])


def instance_discrimination_loss(
    features: Tensor, indices: Tensor, bank: MemoryBank, *, temperature: float, chunk_size: int = 65536
) -> Tensor:
    """The negative log probability of recognizing each patch among all patches of the training set.

        J = -mean_i log P(i | f_i),   P(i | f) = exp(v_i . f / tau) / sum_j exp(v_j . f / tau)

    The sum over all rows v_j of the bank is streamed, ``chunk_size`` rows at once; for the gradient only (batch, d)
    values are kept, so the bank may be changed right after the call. With unit rows and features J lies in
    0 .. ln N + 2 / tau. J is at least float32, and can be differentiated once, in ``features`` only.

    Features f are (batch, d), of unit l2 norm, their indices i (batch,), int64, below N, and the temperature tau is
    positive; ValueError otherwise. Wu et al., CVPR 2018.
    """
    check(temperature > 0, "temperature", "positive", temperature)
    check_at_least_one(chunk_size=chunk_size)
    _check(features, indices, bank)
    with torch.autocast(features.device.type, enabled=False):
        loss: Tensor = _NegativeLogProbability.apply(
            features.to(bank.vectors.dtype), indices, bank.vectors, temperature, chunk_size
        )
        return loss


class _NegativeLogProbability(torch.autograd.Function):
    """The loss above. Its gradient, (sum_j P(j | f_i) v_j - v_i) / (tau batch), comes with the value."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, indices: Tensor, vectors: Tensor, temperature: float, chunk_size: int
    ) -> Tensor:
        rows = vectors[indices]
        logits_of_rows = (features * rows).sum(dim=1) / temperature
        # a running maximum, not its bound 1 / tau: with a low tau all terms could be too small to represent
        maximum = logits_of_rows.clone()
        total = torch.zeros_like(logits_of_rows)
        mean = torch.zeros_like(features)
        for chunk in vectors.split(chunk_size):
            logits = features @ chunk.T / temperature
            higher = torch.maximum(maximum, logits.amax(dim=1))
            terms = torch.exp(logits - higher[:, None])
            rescale = torch.exp(maximum - higher)
            total = total * rescale + terms.sum(dim=1)
            mean = mean * rescale[:, None] + terms @ chunk
            maximum = higher
        ctx.save_for_backward((mean / total[:, None] - rows) / (temperature * len(features)))
        return (maximum + total.log() - logits_of_rows).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None


def _check(features: Tensor, indices: Tensor, bank: MemoryBank) -> None:
    num_patches, num_features = bank.vectors.shape
    fits = features.ndim == 2 and features.shape[1] == num_features and len(features) > 0
    require(fits, f"features must have shape (batch, {num_features})", tuple(features.shape))
    fits = indices.dtype == torch.int64 and indices.shape == features.shape[:1]
    check(fits, "indices", f"int64 with shape ({len(features)},)", f"{indices.dtype} {tuple(indices.shape)}")
    if indices.device.type == "cpu":  # a GPU would have to be waited for, and asserts the same itself
        low, high = int(indices.min()), int(indices.max())
        check(low >= 0 and high < num_patches, "indices", f"in 0 .. {num_patches - 1}", f"{low} .. {high}")
