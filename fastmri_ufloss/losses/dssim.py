"""dssim: 1 - SSIM with Gaussian windows."""

from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from fastmri_ufloss.losses.images import (
    Reduction,
    check_data_range,
    check_images,
    full_precision,
    reduce,
    unit_range,
)

__all__ = ["WINDOW", "DSSIMLoss", "dssim_loss", "gaussian_ssim"]

WINDOW = 11
"""Rows and columns of the Gaussian window, which torchmetrics derives from sigma = 1.5."""


def dssim_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None, *, reduction: Reduction = "mean"
) -> Tensor:
    """1 - SSIM of the magnitudes, with Wang's Gaussian windows of 11x11, sigma = 1.5, k1 = 0.01, k2 = 0.03.

    The mean is over the windows that lie inside the image, as in Wang's code, scikit-image and piq. (torchmetrics,
    which computes the map, reflects the image at its borders and has a value for every pixel; a frame of 5 pixels is
    left out here. On a GPU its padding has no deterministic gradient, so that ``torch.use_deterministic_algorithms``
    refuses it.) The arithmetic is in float64, since the variances in a window are small differences. (Pawar et
    al., "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM 2019, with weight 0.1
    beside l2; SSIM: Wang et al., IEEE TIP 2004.)

    Args:
        output: (batch, 1, rows, cols), real magnitude, or complex, of which the magnitude is taken.
        target: the same shape and kind.
        data_range: (batch,), the largest intensity of each image's volume.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), 0 to 2, 0 for equal images.

    Raises:
        ValueError: if shapes or kinds differ, an image is smaller than the window, or data_range is missing or not
            positive.
    """
    check_images(output, target)
    if min(output.shape[-2:]) < WINDOW:
        raise ValueError(f"dssim needs images of at least {WINDOW}x{WINDOW}, got {tuple(output.shape[-2:])}")
    data_range = check_data_range("dssim", data_range, target)
    with full_precision(output):
        similarity = gaussian_ssim(unit_range(output, data_range), unit_range(target.detach(), data_range))
        return reduce((1 - similarity).to(data_range.dtype), reduction)


class DSSIMLoss(nn.Module):
    """`dssim_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return dssim_loss(output, target, data_range)


def gaussian_ssim(output: Tensor, target: Tensor) -> Tensor:
    """The mean SSIM over the windows inside each image, (batch,), of real images at a data range of 1."""
    _, similarity = structural_similarity_index_measure(
        output, target, reduction="none", data_range=1.0, return_full_image=True
    )
    border = WINDOW // 2
    inside: Tensor = similarity[..., border:-border, border:-border]
    return inside.mean(dim=(1, 2, 3))
