"""The patches with the largest gradients."""

import numpy as np
import pytest
import torch
from helpers import randn_complex

from fastmri_ufloss.metrics.textured_patches import textured_corners


def test_first_patch_has_the_largest_sum_of_gradients() -> None:
    image = randn_complex(23, 30, seed=2, dtype=torch.complex128)
    magnitude = image.abs().numpy()
    gradients = np.hypot(*np.gradient(np.minimum(magnitude, np.percentile(magnitude, 95))))
    sums = {
        (row, col): gradients[row : row + 8, col : col + 8].sum() for row in range(23 - 7) for col in range(30 - 7)
    }
    assert tuple(textured_corners(image, 8)[0].tolist()) == max(sums, key=sums.__getitem__)


def test_patches_do_not_overlap() -> None:
    corners = textured_corners(randn_complex(24, 32), 8, count=4)
    distances = (corners[:, None] - corners[None]).abs().amax(dim=2)
    assert bool((distances[~torch.eye(4, dtype=torch.bool)] >= 8).all())


def test_bright_fat_is_not_all_there_is() -> None:
    image = torch.ones(40, 40)
    image[30:32, 30:32] = 1000.0
    image[4:12, 4:12] += torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    row, col = textured_corners(image, 8)[0].tolist()
    assert row < 12 and col < 12


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"at least as large as a patch of 8x8, got \(7, 20\)"):
        textured_corners(torch.ones(7, 20), 8)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        textured_corners(torch.ones(9, 9), 8, count=0)


def test_no_more_patches_than_there_is_room_for() -> None:
    assert len(textured_corners(randn_complex(9, 17), 8, count=5)) <= 2
    assert textured_corners(torch.ones(9, 9), 8, count=2).shape == (1, 2)
