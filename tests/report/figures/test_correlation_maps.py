"""Maps of one patch against all of an image."""

import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import randn_complex
from skimage.metrics import structural_similarity

from fastmri_ufloss.mri.intensity import image_scale, to_patch_channels
from fastmri_ufloss.report.figures.retrieval import best_match, feature_maps, ssim_maps

CORNERS = torch.tensor([[4, 2], [0, 6]])


@pytest.mark.parametrize("in_chans", [1, 2])
def test_feature_map_holds_the_inner_products(in_chans: int) -> None:
    source, image = randn_complex(20, 17), randn_complex(15, 21, seed=1)
    if in_chans == 1:
        source, image = source.abs(), image.abs()
    net = SmallFeatureNet(in_chans)
    maps = feature_maps(net, source, CORNERS, image, stride=3, chunk_size=5)
    assert maps.shape == (2, 3, 5)

    def feature(part: torch.Tensor, row: int, col: int) -> torch.Tensor:
        patch = (part / image_scale(part[None]))[row : row + 8, col : col + 8]
        return net(to_patch_channels(patch[None], in_chans))[0]

    for number, corner in enumerate(CORNERS.tolist()):
        for row in range(3):
            for col in range(5):
                expected = feature(source, *corner) @ feature(image, 3 * row, 3 * col)
                assert float(maps[number, row, col]) == pytest.approx(float(expected), abs=1e-5)


def test_ssim_map_is_that_of_scikit_image() -> None:
    source, image = randn_complex(20, 17), 1e-4 * randn_complex(15, 21, seed=1)
    maps = ssim_maps(source, CORNERS, image, patch_size=8, stride=3)
    assert maps.shape == (2, 3, 5)
    first, second = ((part.abs() / image_scale(part[None])).double().numpy() for part in (source, image))
    for number, (top, left) in enumerate(CORNERS.tolist()):
        for row in range(3):
            for col in range(5):
                expected = structural_similarity(
                    first[top : top + 8, left : left + 8],
                    second[3 * row : 3 * row + 8, 3 * col : 3 * col + 8],
                    data_range=float(first.max()),
                )
                assert float(maps[number, row, col]) == pytest.approx(expected, abs=1e-5)


def test_patch_finds_itself() -> None:
    source = randn_complex(20, 17)
    for maps in (
        feature_maps(SmallFeatureNet(), source, CORNERS, source, stride=2),
        ssim_maps(source, CORNERS, source, patch_size=8, stride=2),
    ):
        for values, corner in zip(maps, CORNERS.tolist(), strict=True):
            row, col, value = best_match(values.numpy(), stride=2)
            assert [row, col] == corner and value == pytest.approx(1.0, abs=1e-5)


def test_too_small_an_image_is_named() -> None:
    source, small = randn_complex(20, 17), randn_complex(7, 30)
    with pytest.raises(ValueError, match="at least as large as a patch of 8x8, got 7x30"):
        feature_maps(SmallFeatureNet(), source, CORNERS, small, stride=4)
