"""What several tests need: random complex tensors, small volumes, the shared data."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FASTMRI_UFLOSS_DATA", "no-data"))


def needs_data() -> pytest.MarkDecorator:
    """Skips a test on real data unless FASTMRI_UFLOSS_DATA names their folder."""
    return pytest.mark.skipif("FASTMRI_UFLOSS_DATA" not in os.environ, reason="FASTMRI_UFLOSS_DATA is not set")


def randn_complex(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Complex white noise of unit variance."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def column_mask(batch: int, cols: int, *, every: int = 3, center: int = 8) -> Tensor:
    """A mask (batch, 1, 1, cols, 1) of every n-th column and a full centre."""
    mask = torch.zeros(batch, 1, 1, cols, 1, dtype=torch.bool)
    mask[..., ::every, :] = True
    start = (cols - center + 1) // 2
    mask[..., start : start + center, :] = True
    return mask


def smooth_maps(batch: int, coils: int, rows: int, cols: int, *, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Smooth coil maps of unit norm, (batch, coils, rows, cols, 2)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    angles = torch.arange(coils) * 2 * torch.pi / coils
    distance = (y - angles.sin()[:, None, None]) ** 2 + (x - angles.cos()[:, None, None]) ** 2
    phase = angles[:, None, None] + 0.5 * x * angles.cos()[:, None, None] + 0.3 * y
    maps = torch.polar(1 / (0.5 + distance), phase)
    maps = maps / maps.abs().square().sum(dim=0, keepdim=True).sqrt()
    return torch.view_as_real(maps.to(dtype).expand(batch, -1, -1, -1).contiguous())
