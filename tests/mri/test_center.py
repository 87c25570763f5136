import pytest
import torch
from helpers import randn_complex

from fastmri_ufloss.mri import count_center_lines, estimate_sens_maps
from fastmri_ufloss.mri.center import center_regions


def square_mask(rows: int, cols: int, side: int) -> torch.Tensor:
    """(1, 1, rows, cols, 1) with the center of that side, and points around it."""
    mask = torch.zeros(1, 1, rows, cols, 1, dtype=torch.bool)
    mask[:, :, ::2, ::3] = True
    top, left = (rows - side + 1) // 2, (cols - side + 1) // 2
    mask[:, :, top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("shape", [(30, 41), (33, 24), (24, 24)])
def test_side_of_a_square(shape: tuple[int, int]) -> None:
    for side in range(4, min(shape)):
        mask = square_mask(*shape, side)
        count = int(count_center_lines(mask))
        top, left = (shape[0] - count + 1) // 2, (shape[1] - count + 1) // 2
        assert mask[..., top : top + count, left : left + count, 0].all()
        assert side <= count <= side + 1  # the points around it may make it one larger


def test_regions_of_lines_and_squares() -> None:
    kspace = torch.view_as_real(randn_complex(1, 3, 40, 36))
    points = square_mask(40, 36, 10)
    lines = torch.zeros(1, 1, 1, 36, 1, dtype=torch.bool)
    lines[..., 13:23, :] = lines[..., ::4, :] = True
    assert center_regions(kspace, 10, lines, 24) == [(24, 10)]
    assert center_regions(kspace, 0, lines, 24) == [(24, 10)]
    assert center_regions(kspace * lines, None, None, 24) == [(24, 10)]
    assert center_regions(kspace, 10, points, 24) == [(10, 10)]
    assert center_regions(kspace, 10, points, 8) == [(8, 8)]
    side = int(count_center_lines(points))
    assert center_regions(kspace, None, points, 24) == [(side, side)]
    assert center_regions(kspace * points, None, None, 24) == [(side, side)]
    assert center_regions(kspace * 0, None, None, 24) == [(24, 24)]


def test_maps_of_a_square_ignore_the_points_around_it() -> None:
    kspace, mask = torch.view_as_real(randn_complex(1, 3, 40, 36)), square_mask(40, 36, 10)
    center = torch.zeros_like(kspace)
    center[:, :, 15:25, 13:23] = kspace[:, :, 15:25, 13:23]
    maps = estimate_sens_maps(kspace * mask, 10, mask=mask)
    assert torch.equal(maps, estimate_sens_maps(center, 10, mask=mask))
    # and with the mask of lines they would not
    assert not torch.equal(maps, estimate_sens_maps(kspace * mask, 10))
