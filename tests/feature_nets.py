"""Small networks in the place of a trained feature network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallFeatureNet(nn.Module):
    """A fixed projection of a patch, which is quick and has features that differ."""

    def __init__(self, in_chans: int = 2, *, patch_size: int = 8, num_features: int = 6) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.patch_size = patch_size
        weight = torch.randn(
            num_features, in_chans * patch_size**2, generator=torch.Generator().manual_seed(0), dtype=torch.float32
        )
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.eval()

    def forward(self, patches: Tensor) -> Tensor:
        return F.normalize(patches.flatten(1) @ self.weight.T, dim=1)
