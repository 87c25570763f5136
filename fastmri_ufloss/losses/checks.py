"""What every loss demands of its images."""

from torch import Tensor

__all__ = ["check_images"]


def check_images(output: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both are images (batch, 1, rows, cols) of the same shape and kind."""
    if output.ndim != 4 or output.shape[1] != 1:
        raise ValueError(f"output must have shape (batch, 1, rows, cols), got {tuple(output.shape)}")
    if output.shape != target.shape:
        raise ValueError(f"target must have the shape of output, got {tuple(target.shape)} and {tuple(output.shape)}")
    if output.is_complex() != target.is_complex():
        raise ValueError(
            f"output and target must both be complex or both be magnitudes, got {output.dtype}, {target.dtype}"
        )
