"""How alike one patch is to all patches of an image: by features, and by SSIM."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.ssim import ssim_loss
from fastmri_ufloss.losses.ufloss import patch_features
from fastmri_ufloss.metrics.feature_bank import features_at
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["Match", "best_match", "feature_maps", "ssim_maps"]


class Match(NamedTuple):
    """The patch of an image that is most like another patch: its upper left corner, and the value of the map."""

    row: int
    col: int
    value: float


def feature_maps(
    feature_net: nn.Module,
    source: Tensor,
    corners: Tensor,
    image: Tensor,
    *,
    stride: int = 4,
    chunk_size: int = 256,
) -> Tensor:
    """Inner products of the features of some patches of a source with those of all patches on a grid of an image.

    Args:
        feature_net: see `fastmri_ufloss.losses.UFLoss`, in eval mode.
        source: (rows, cols), complex for a network of 2 channels, real magnitude for 1.
        corners: (n, 2), upper left corners of patches of the source.
        image: like source, of any size from that of a patch.
        stride: of the grid, which starts at the upper left corner.
        chunk_size: patches that go through the network at once.

    Returns:
        (n, rows of the grid, columns of the grid), from -1 to 1.

    Raises:
        ValueError: if an argument is not as above, or an image is smaller than a patch.
    """
    wanted = features_at(feature_net, source, corners, chunk_size=chunk_size)
    features = patch_features(
        feature_net, image[None, None], image_scale(image[None]), stride=stride, chunk_size=chunk_size
    )[0]
    rows = (image.shape[0] - int(feature_net.patch_size)) // stride + 1  # type: ignore[arg-type]
    return (wanted @ features.T).reshape(len(corners), rows, -1)


def ssim_maps(
    source: Tensor, corners: Tensor, image: Tensor, *, patch_size: int, stride: int = 4, chunk_size: int = 256
) -> Tensor:
    """SSIM of some patches of a source with all patches on a grid of an image; of complex images, of the magnitudes.

    It is fastMRI's and scikit-image's SSIM, with windows of 7x7 inside the patch. Each image is divided by its
    `image_scale` first, since SSIM minds the brightness; the data range is the source's largest value then.

    Args:
        source, corners, image, stride: as in `feature_maps`.
        patch_size: rows and columns of a patch.
        chunk_size: patches that are compared at once.

    Returns:
        (n, rows of the grid, columns of the grid), from -1 to 1.

    Raises:
        ValueError: if an argument is not as above, or an image is smaller than a patch.
    """
    source, image = (part.abs() / image_scale(part[None]) for part in (source, image))
    data_range = source.max().clamp(min=torch.finfo(source.dtype).tiny)
    if min(*source.shape, *image.shape) < patch_size:
        raise ValueError(
            f"images must be at least as large as a patch of {patch_size}x{patch_size}, got {tuple(source.shape)} "
            f"and {tuple(image.shape)}"
        )
    patches = image.unfold(0, patch_size, stride).unfold(1, patch_size, stride)
    grid = patches.shape[:2]
    maps = []
    for row, col in corners.tolist():
        wanted = source[row : row + patch_size, col : col + patch_size].expand(1, 1, -1, -1)
        values = []
        for numbers in torch.arange(grid[0] * grid[1]).split(chunk_size):
            chunk = patches[numbers // grid[1], numbers % grid[1]].unsqueeze(1)
            values.append(1 - ssim_loss(chunk, wanted.expand_as(chunk), data_range, reduction="none"))
        maps.append(torch.cat(values).reshape(grid))
    return torch.stack(maps)


def best_match(values: Tensor, *, stride: int = 4) -> Match:
    """The largest value of a map (rows, cols) of a grid of this stride, and where it is."""
    number = int(values.argmax())
    row, col = divmod(number, values.shape[1])
    return Match(row * stride, col * stride, float(values[row, col]))
