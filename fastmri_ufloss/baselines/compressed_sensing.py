"""Parallel imaging and compressed sensing (PICS): SENSE with a sparsity term, by sigpy's solvers or by BART."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sigpy.app import LinearLeastSquares
from sigpy.linop import FiniteDifference, Linop, Wavelet
from sigpy.prox import L1Reg, Prox, UnitaryTransform
from torch import Tensor

from fastmri_ufloss.checks import check
from fastmri_ufloss.mri import cg_sense, combine_sets, image_scale

__all__ = ["BART", "has_bart", "pics"]

BART = "the program 'bart' on the PATH: install BART (https://mrirecon.github.io/bart)"

_WAVELET = "db2"  # BART's dau2; longer ones (db4, db6) had errors 3 and 7% larger
# of the grid in each iteration: a fixed grid leaves its blocks in the image, with errors a fifth larger. So small a
# shift keeps the seam near the border of the image; more did not change the error.
_MAX_SHIFT = 32
# Dual step size of the total variation solver. Both parts of its dual variable are small beside an image of scale 1:
# with sigpy's default of 1 the image is still 5 to 9% away from the minimum after 100 iterations. With 0.03 its
# aliases of columns are where lam is small, and with 0.01 large weights converge slowly.
_DUAL_STEP = 0.015
_GRADIENT_NORM = 8.0  # upper bound of |G^H G| for the differences along two axes
# terms along the two axes of an image, by the letters of BART
_BART_TERMS = {"wavelet": "W:3:0:{lam!r}", "total_variation": "T:3:0:{lam!r}"}
# of ADMM, which total variation is minimized by. With BART's own 0.5 the aliases of columns are still there after
# 1000 iterations where the weight is small: on hearts at 5 times the error was 0.17, and with 0.01 0.16 after 100.
_BART_RHO = "0.01"


@torch.no_grad()
def pics(
    masked_kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor,
    *,
    regularizer: Literal["wavelet", "total_variation"] = "wavelet",
    lam: float = 0.0015,
    num_iterations: int = 100,
    solver: Literal["sigpy", "bart"] = "sigpy",
) -> Tensor:
    r"""Compressed sensing with coil maps: the image that fits the samples and is sparse.

    .. math:: \hat x = c \arg\min_x \tfrac{1}{2} \| U F S x - y / c \|_2^2 + \lambda \| \Psi x \|_1

    Psi is a db2 wavelet transform, on a grid that is shifted in each iteration (accelerated proximal gradients), or
    the complex differences to the next pixel along rows and along columns (primal-dual hybrid gradients). c is the
    `image_scale` of the sample's CG-SENSE image, so that ``lam`` means the same in every unit.

    BART starts from zero, ends its wavelet transform at blocks of 16 pixels, joins the two differences of a pixel to
    one magnitude, and minimizes total variation by ADMM, whose inner iterations count as well.

    Args:
        masked_kspace, mask, sens_maps: as for `cg_sense`; maps have a norm of 1 or 0 over the coils. Of several sets
            of maps each has its own Psi x.
        lam: relative to the 95th percentile of the image, at least 0; the best value depends on noise and sampling.
        solver: ``"bart"`` runs the program ``bart pics``, with which this implementation can be compared.

    Returns:
        Image (batch, rows, cols) or (batch, sets, rows, cols), complex64, zero for empty k-space and where all
        maps are zero.

    Raises:
        ValueError: if the shapes do not belong together or an option is out of range.
        FileNotFoundError, ChildProcessError: if BART is not installed, or fails, with the words of BART.

    References:
        M. Lustig et al., Magn Reson Med 58:1182, 2007; R. Coifman and D. Donoho, Translation-invariant de-noising,
        1995 (the shifts); K. T. Block et al., Magn Reson Med 57:1086, 2007; A. Chambolle and T. Pock, J Math Imaging
        Vis 40:120, 2011; M. Uecker et al., Magn Reson Med 71:990, 2014 (BART).
    """
    check(regularizer in _BART_TERMS, "regularizer", "'wavelet' or 'total_variation'", repr(regularizer))
    check(0 <= lam < float("inf"), "lam", "finite and at least 0", lam)
    check(num_iterations >= 1, "num_iterations", "at least 1", num_iterations)
    check(solver in ("sigpy", "bart"), "solver", "'sigpy' or 'bart'", repr(solver))
    if solver == "bart" and not has_bart():
        raise FileNotFoundError(f"pics needs {BART}")
    solve = _run_bart if solver == "bart" else _run_sigpy
    start = cg_sense(masked_kspace, mask, sens_maps)
    scales = image_scale(combine_sets(start)).cpu()
    sampled = (mask[:, 0, ..., 0] != 0).float().expand(len(start), -1, -1).cpu()
    images = torch.zeros(start.shape, dtype=torch.complex64)
    for i, scale in enumerate(scales):  # sample by sample on the CPU
        kspace, maps = (
            torch.view_as_complex(data[i].float().contiguous()).cpu() for data in (masked_kspace, sens_maps)
        )
        kspace = kspace / scale * sampled[i]
        if kspace.any() and maps.any():  # BART would make NaN
            first = start[i].cpu().to(torch.complex64) / scale
            image = solve(kspace, sampled[i], maps, first, regularizer, lam, num_iterations)
            # where nothing was measured Psi alone shapes the image
            images[i] = scale * (image * (maps != 0).any(dim=-3))
    return images.to(start.device)


def has_bart() -> bool:
    """Whether the program ``bart`` can be found."""
    return shutil.which("bart") is not None


def _run_sigpy(
    kspace: Tensor, sampled: Tensor, maps: Tensor, start: Tensor, regularizer: str, lam: float, num_iterations: int
) -> Tensor:
    """A slice by sigpy; the origin of all data in the first element saves the shifts of centered transforms."""
    bound = float((maps.abs() ** 2).flatten(end_dim=-3).sum(dim=0).max())  # of |E^H E|, because |F^H U F| <= 1
    kspace, sampled, maps, start = (
        torch.fft.ifftshift(data, dim=[dim for dim in (-2, -1) if data.shape[dim] > 1])
        for data in (kspace, sampled, maps, start)
    )
    dims: tuple[int, ...] = (-2, -1)
    if len(sampled) == 1:  # whole columns: no transform along them in each iteration
        dims = (-1,)
        kspace = torch.fft.ifft(kspace, dim=-2, norm="ortho")
    if regularizer == "wavelet":
        wavelet = Wavelet(start.shape, axes=(-2, -1), wave_name=_WAVELET)
        prox = UnitaryTransform(L1Reg(wavelet.oshape, lam), wavelet)
        options = {"proxg": _CycleSpinning(prox), "alpha": 1 / bound}
    else:
        differences = FiniteDifference(start.shape, axes=(-2, -1))
        steps = {"sigma": _DUAL_STEP, "tau": 1 / (_DUAL_STEP * (bound + _GRADIENT_NORM))}
        options = {"proxg": L1Reg(differences.oshape, lam), "G": differences, **steps}
    encoding = SenseEncoding(maps, sampled, dims)
    app = LinearLeastSquares(
        encoding, kspace.numpy(), x=start.numpy().copy(), max_iter=num_iterations, show_pbar=False, **options
    )  # with the step sizes given, sigpy does not estimate them from random numbers
    return torch.fft.fftshift(torch.from_numpy(app.run()), dim=(-2, -1))


class SenseEncoding(Linop):
    """x -> U F S x for sigpy, or the adjoint, with the origin of all data in the first element.

    Maps are complex ([sets,] coils, rows, cols), images ([sets,] rows, cols), samples 0 or 1 and (1, cols) or (rows,
    cols); F is along ``dims`` only.
    """

    def __init__(self, sens_maps: Tensor, sampled: Tensor, dims: tuple[int, ...], *, adjoint: bool = False) -> None:
        self.sens_maps, self.sampled, self.dims, self.adjoint = sens_maps, sampled, dims, adjoint
        image, samples = [*sens_maps.shape[:-3], *sens_maps.shape[-2:]], list(sens_maps.shape[-3:])
        super().__init__(*((image, samples) if adjoint else (samples, image)))

    def _apply(self, data: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(data))
        if self.adjoint:
            coil_images = torch.fft.ifftn(tensor * self.sampled, dim=self.dims, norm="ortho")
            return (self.sens_maps.conj() * coil_images).sum(dim=-3).numpy()
        coil_images = self.sens_maps * tensor.unsqueeze(-3)
        if coil_images.ndim == 4:
            coil_images = coil_images.sum(dim=0)
        coil_kspace = torch.fft.fftn(coil_images, dim=self.dims, norm="ortho")
        return (coil_kspace * self.sampled).numpy()

    def _adjoint_linop(self) -> Linop:
        return SenseEncoding(self.sens_maps, self.sampled, self.dims, adjoint=not self.adjoint)


class _CycleSpinning(Prox):
    """A proximal operator of images (..., rows, cols) on another grid in each call: shift, operator, shift back."""

    def __init__(self, prox: Prox) -> None:
        self._prox_of_grid = prox
        self._generator = np.random.default_rng(0)  # the same shifts in every solution
        self._center = (prox.shape[-2] // 2, prox.shape[-1] // 2)
        super().__init__(prox.shape)

    def _prox(self, alpha: float, image: np.ndarray) -> np.ndarray:
        shift = self._generator.integers(_MAX_SHIFT, size=2) + self._center
        shifted = np.roll(image, shift, axis=(-2, -1))
        return np.roll(self._prox_of_grid(alpha, shifted), -shift, axis=(-2, -1))


def _run_bart(
    kspace: Tensor, sampled: Tensor, maps: Tensor, start: Tensor, regularizer: str, lam: float, num_iterations: int
) -> Tensor:
    """A slice by ``bart pics``, with its own scaling off (-w 1), in random shifts of a fixed seed."""
    arguments = ["-w", "1", "-i", str(num_iterations), "-R", _BART_TERMS[regularizer].format(lam=float(lam))]
    if regularizer == "total_variation":
        arguments += ["-u", _BART_RHO]
    *sets, rows, cols = start.shape
    with tempfile.TemporaryDirectory(prefix="bart-") as folder:
        pattern = sampled.expand(1, rows, cols)
        for name, data in (("kspace", kspace), ("maps", maps), ("pattern", pattern)):
            # BART's dimensions: readout, phase 1, phase 2, coils, sets of maps
            array = data.permute(-2, -1, *range(data.ndim - 3, -1, -1))[:, :, None].numpy()
            header = f"# Dimensions\n{' '.join(map(str, array.shape))}\n"
            Path(folder, f"{name}.hdr").write_text(header, encoding="utf-8")
            array.astype("<c8").ravel(order="F").tofile(Path(folder, f"{name}.cfl"))
        result = subprocess.run(
            ["bart", "pics", *arguments, "-p", "pattern", "kspace", "maps", "image"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # slices run side by side
            capture_output=True,
            text=True,
            errors="replace",
        )
        file = Path(folder, "image.cfl")
        image = np.fromfile(file, dtype="<c8") if file.is_file() else np.empty(0)
    if result.returncode != 0 or image.size != start.numel() or not np.isfinite(image).all():
        words = (result.stderr.strip() or result.stdout.strip() or "no message")[-500:]
        raise ChildProcessError(f"bart pics {' '.join(arguments)} failed (exit code {result.returncode}): {words}")
    return torch.from_numpy(image.reshape(*sets, cols, rows).swapaxes(-2, -1).astype(np.complex64))
