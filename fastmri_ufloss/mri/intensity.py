"""What every user of image patches must agree on: the scale of an image and its channels."""

import torch
from torch import Tensor

__all__ = ["SCALE_RULE", "image_scale", "to_patch_channels"]

SCALE_RULE = "target_p95"  # the name of `image_scale`, stored with a feature network, which is valid for it only


def image_scale(images: Tensor) -> Tensor:
    """The 95th percentile of the magnitude of each image: the smallest value that 95% of the pixels do not exceed.

    Where the percentile is 0, the largest magnitude takes its place, and where that is 0 as well, 1. (Wang et al.,
    MRM 2022, scale a subject so; here each image is scaled.)

    Args:
        images: (batch, ..., rows, cols), real or complex, of any unit; ValueError without batch axis or pixel.

    Returns:
        (batch,), real, at least float32, positive, without gradient.
    """
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"images must have shape (batch, ..., rows, cols), got {tuple(images.shape)}")
    magnitude = images.detach().abs().flatten(1)
    if magnitude.dtype in (torch.float16, torch.bfloat16) or not magnitude.dtype.is_floating_point:
        magnitude = magnitude.float()
    # topk, because kthvalue is not allowed on a GPU under torch.use_deterministic_algorithms
    scale = magnitude.topk(magnitude.shape[1] * 5 // 100 + 1, dim=1).values[:, -1]
    scale = torch.where(scale > 0, scale, magnitude.amax(dim=1))
    return torch.where(scale > 0, scale, 1.0)


def to_patch_channels(images: Tensor, in_chans: int) -> Tensor:
    """Images (n, rows, cols) as the real channels (n, in_chans, rows, cols) that a feature network takes.

    Args:
        images: complex for 2 channels, real magnitude for 1 channel.
        in_chans: 2 for real and imaginary part, 1 for the magnitude; otherwise ValueError.
    """
    if images.ndim != 3:
        raise ValueError(f"images must have shape (n, rows, cols), got {tuple(images.shape)}")
    if in_chans not in (1, 2):
        raise ValueError(f"in_chans must be 1 (magnitude) or 2 (real, imaginary), got {in_chans}")
    if in_chans == 1 and images.is_complex():
        raise ValueError(
            f"images must be real for a feature network of 1 channel, got {images.dtype}: "
            "take the magnitude or use a network of 2 channels"
        )
    if in_chans == 2 and not images.is_complex():
        raise ValueError(
            f"images must be complex for a feature network of 2 channels, got {images.dtype}: "
            "keep the phase or use a network of 1 channel"
        )
    return torch.view_as_real(images).permute(0, 3, 1, 2) if in_chans == 2 else images.unsqueeze(1)
