"""PICS by the program of BART, called like `pics`."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.baselines.compressed_sensing import Regularizer, check_options
from fastmri_ufloss.mri import cg_sense, image_scale

__all__ = ["bart_pics", "has_bart"]

_PROGRAM = "bart"
# terms along the two axes of an image, by the letters of BART
_TERMS = {"wavelet": "W:3:0:{lam!r}", "total_variation": "T:3:0:{lam!r}"}
# of ADMM, which total variation is minimised by. With BART's own 0.5 the aliases of columns are still there after
# 1000 iterations where the weight is small: on hearts at 5 times the error was 0.17, and with 0.01 0.16 after 100.
_RHO = "0.01"
_SHOWN = 500  # letters of what BART says when it fails


def has_bart() -> bool:
    """Whether the program ``bart`` can be found."""
    return shutil.which(_PROGRAM) is not None


@torch.no_grad()
def bart_pics(
    masked_kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor,
    *,
    regularizer: Regularizer = "wavelet",
    lam: float = 0.0015,
    num_iterations: int = 100,
) -> Tensor:
    r"""Compressed sensing with coil maps by ``bart pics``, to compare `pics` with another implementation.

    .. math:: \hat x = c \arg\min_x \tfrac{1}{2} \| U F S x - y / c \|_2^2 + \lambda \| \Psi x \|_1

    The objective is that of `pics`, with the same scale c and the same meaning of ``lam``; BART's own scaling is
    off (``-w 1``). What differs: BART's iteration starts from zero; its wavelet transform (of the same wavelets, in
    its own random shifts of a fixed seed) ends at blocks of 16 pixels; its total variation joins the two
    differences of a pixel to one magnitude. It minimises that one by ADMM, whose inner iterations count as well.

    Sample by sample, in complex64, by one thread. The data pass through files in a temporary folder.

    Args:
        masked_kspace: (batch, coils, rows, cols, 2), of any unit and size.
        mask: (batch, 1, 1 or rows, cols, 1), not zero where a sample was acquired.
        sens_maps: (batch, coils, rows, cols, 2), with a norm of 1 or 0 over the coils.
        regularizer: the sparsity term.
        lam: its weight, see `pics`.
        num_iterations: of the solver, at least 1.

    Returns:
        Complex image (batch, rows, cols), complex64, on the device and in the unit of masked_kspace. Zero for
        empty k-space.

    Raises:
        ValueError: if the shapes do not belong together or an option is out of range.
        FileNotFoundError: if BART is not installed.
        ChildProcessError: if BART fails; the message has its own words.

    References:
        M. Uecker et al., ESPIRiT, Magn Reson Med 71:990-1001, 2014; BART, https://mrirecon.github.io/bart.
    """
    check_options(regularizer, lam, num_iterations)
    if not has_bart():
        raise FileNotFoundError(
            f"there is no program {_PROGRAM!r} on the PATH: install BART (https://mrirecon.github.io/bart), or leave "
            "out its methods"
        )
    start = cg_sense(masked_kspace, mask, sens_maps)
    scales = image_scale(start).cpu()
    sampled = (mask[:, 0, ..., 0] != 0).expand(len(start), *sens_maps.shape[2:4])
    images = torch.zeros(start.shape, dtype=torch.complex64)
    arguments = ["-w", "1", "-i", str(num_iterations), "-R", _TERMS[regularizer].format(lam=float(lam))]
    if regularizer == "total_variation":
        arguments += ["-u", _RHO]
    for i, scale in enumerate(scales):
        kspace = torch.view_as_complex(masked_kspace[i].float().contiguous()).cpu() * sampled[i].cpu() / scale
        maps = torch.view_as_complex(sens_maps[i].float().contiguous()).cpu()
        if kspace.any() and maps.any():  # of nothing BART makes NaN
            image = _run(arguments, kspace, sampled[i].cpu(), maps)
            images[i] = scale * image * (maps != 0).any(dim=0)  # as `pics` does
    return images.to(start.device)


def _run(arguments: list[str], kspace: Tensor, sampled: Tensor, maps: Tensor) -> Tensor:
    """``bart pics`` of (coils, rows, cols)."""
    with tempfile.TemporaryDirectory(prefix="bart-") as folder:
        # BART's dimensions are readout, phase 1, phase 2, coils
        for name, data in (("kspace", kspace), ("maps", maps), ("pattern", sampled[None])):
            _write_cfl(Path(folder) / name, data.permute(1, 2, 0)[:, :, None].numpy())
        result = subprocess.run(
            [_PROGRAM, "pics", *arguments, "-p", "pattern", "kspace", "maps", "image"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # slices run side by side
            capture_output=True,
            text=True,
            errors="replace",
        )
        file = Path(folder) / "image.cfl"
        image = np.fromfile(file, dtype="<c8") if file.is_file() else np.empty(0)
    rows, cols = sampled.shape
    if result.returncode != 0 or image.size != rows * cols or not np.isfinite(image).all():
        words = (result.stderr.strip() or result.stdout.strip() or "no message")[-_SHOWN:]
        raise ChildProcessError(f"bart pics {' '.join(arguments)} failed (exit code {result.returncode}): {words}")
    return torch.from_numpy(image.reshape((rows, cols), order="F").astype(np.complex64))


def _write_cfl(path: Path, data: np.ndarray) -> None:
    """An array as BART's pair of files, with its axes in BART's order."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, data.shape))}\n", encoding="utf-8")
    data.astype("<c8").ravel(order="F").tofile(path.with_suffix(".cfl"))
