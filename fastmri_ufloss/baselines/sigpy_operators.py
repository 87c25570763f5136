"""What sigpy's solvers are given here: SENSE with few transforms, and a sparsity term without a grid."""

import numpy as np
import torch
from sigpy.linop import Linop
from sigpy.prox import Prox
from torch import Tensor

__all__ = ["CycleSpinning", "SenseEncoding"]


class SenseEncoding(Linop):
    """x -> U F S x for one sample, whose image, maps and samples all have their origin in the first element.

    Such an origin (``ifftshift`` of centred data) saves the shifts of centred transforms. The transform is unitary,
    so that along axes that are not undersampled it may be left out of F and be applied to the data, once.

    Args:
        sens_maps: complex (coils, rows, cols).
        sampled: 0 or 1, (1, cols) or (rows, cols).
        dims: axes of the transform, of (rows, cols).
        adjoint: whether this is the adjoint, S^H F^H U.
    """

    def __init__(self, sens_maps: Tensor, sampled: Tensor, dims: tuple[int, ...], *, adjoint: bool = False) -> None:
        self.sens_maps = sens_maps
        self.sampled = sampled
        self.dims = dims
        self.adjoint = adjoint
        image, samples = list(sens_maps.shape[1:]), list(sens_maps.shape)
        super().__init__(*((image, samples) if adjoint else (samples, image)))

    def _apply(self, data: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(data))
        if self.adjoint:
            coil_images = torch.fft.ifftn(tensor * self.sampled, dim=self.dims, norm="ortho")
            return (self.sens_maps.conj() * coil_images).sum(dim=0).numpy()
        coil_kspace = torch.fft.fftn(self.sens_maps * tensor, dim=self.dims, norm="ortho")
        return (coil_kspace * self.sampled).numpy()

    def _adjoint_linop(self) -> Linop:
        return SenseEncoding(self.sens_maps, self.sampled, self.dims, adjoint=not self.adjoint)


class CycleSpinning(Prox):
    """A proximal operator of images on another grid in each call: circular shift, operator, shift back.

    The shifts are those of a generator of its own with a fixed seed, the same in every solution.

    Args:
        prox: of images (rows, cols).
        max_shift: the shifts along each axis are below it, at least 1.
        offset: (rows, cols), added to each shift.
    """

    def __init__(self, prox: Prox, *, max_shift: int, offset: tuple[int, int] = (0, 0)) -> None:
        self._prox_of_grid = prox
        self._generator = np.random.default_rng(0)
        self._max_shift = max_shift
        self._offset = offset
        super().__init__(prox.shape)

    def _prox(self, alpha: float, image: np.ndarray) -> np.ndarray:
        shift = self._generator.integers(self._max_shift, size=2) + self._offset
        shifted = np.roll(image, shift, axis=(0, 1))
        return np.roll(self._prox_of_grid(alpha, shifted), -shift, axis=(0, 1))
