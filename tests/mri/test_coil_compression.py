"""Virtual coils: orthonormal combinations that keep the most energy, and the same images if all are kept."""

import shutil
import subprocess
from pathlib import Path

import fastmri
import numpy as np
import pytest
import torch
from helpers import DATA, column_mask, needs_data, randn_complex, smooth_maps
from torch import Tensor

from fastmri_ufloss.mri import cg_sense, coil_compression_matrix, compress_coils, estimate_sens_maps, sens_expand
from fastmri_ufloss.mri.center import crop_center

needs_bart = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")


def calibration(*shape: int, seed: int = 0) -> Tensor:
    """(batch, coils, rows, cols, 2), coils of very different energy, mixed."""
    batch, coils, rows, cols = shape
    white = randn_complex(batch, coils, rows * cols, seed=seed, dtype=torch.complex128)
    mixed = randn_complex(coils, coils, seed=seed + 1, dtype=torch.complex128) * 2.0 ** -torch.arange(coils)
    return torch.view_as_real((mixed @ white).unflatten(-1, (rows, cols)))


def simulated_kspace(coils: int = 6, rows: int = 32, cols: int = 36) -> Tensor:
    image = torch.view_as_real(1 + 0.3 * randn_complex(1, 1, rows, cols))
    noise = torch.view_as_real(randn_complex(1, coils, rows, cols, seed=1))
    return sens_expand(image, smooth_maps(1, coils, rows, cols)) + 0.01 * noise


def test_energies_are_those_of_the_singular_values() -> None:
    data = calibration(2, 5, 7, 6)
    matrix, energies = coil_compression_matrix(data)
    samples = torch.view_as_complex(data).transpose(0, 1).flatten(1)
    vectors, values, _ = torch.linalg.svd(samples, full_matrices=False)
    torch.testing.assert_close(energies, values**2 / (values**2).sum())
    torch.testing.assert_close((matrix @ vectors).abs(), torch.eye(5, dtype=torch.float64))
    virtual = compress_coils(data, matrix).square().sum(dim=(0, 2, 3, 4))
    torch.testing.assert_close(virtual / virtual.sum(), energies)


def test_rows_are_orthonormal_so_that_white_noise_stays_white() -> None:
    data = calibration(1, 7, 6, 6)
    for x, precise in ((data, 1e-12), (data.float(), 1e-5)):
        matrix, _ = coil_compression_matrix(x)
        assert matrix.dtype == x.dtype.to_complex()
        identity = torch.eye(7, dtype=matrix.dtype)
        torch.testing.assert_close(matrix @ matrix.mH, identity, rtol=0, atol=precise)
    matrix, _ = coil_compression_matrix(data)
    noise = torch.view_as_real(randn_complex(1, 7, 200, 100, dtype=torch.complex128))
    virtual = torch.view_as_complex(compress_coils(noise, matrix[:3]))[0].flatten(1)
    covariance = virtual @ virtual.mH / virtual.shape[1]
    torch.testing.assert_close(covariance, torch.eye(3, dtype=torch.complex128), rtol=0, atol=0.05)


def test_matrix_depends_neither_on_scale_nor_on_a_common_phase() -> None:
    data = calibration(1, 4, 8, 8)
    matrix, energies = coil_compression_matrix(data)
    largest = matrix.gather(1, matrix.abs().argmax(dim=1, keepdim=True))
    torch.testing.assert_close(largest.angle(), torch.zeros(4, 1, dtype=torch.float64))
    turned = torch.view_as_real(torch.view_as_complex(data) * 1e-6j)
    for found, expected in zip(coil_compression_matrix(turned), (matrix, energies), strict=True):
        torch.testing.assert_close(found, expected)


def test_all_virtual_coils_give_the_same_images() -> None:
    kspace, mask = simulated_kspace(), column_mask(1, 36, every=2, center=12)
    matrix, _ = coil_compression_matrix(crop_center(kspace, 12))
    virtual = compress_coils(kspace, matrix)
    rss = [fastmri.rss_complex(fastmri.ifft2c(x), dim=1) for x in (virtual, kspace)]
    torch.testing.assert_close(*rss)
    images = []
    for x in (virtual, kspace):
        maps = estimate_sens_maps(x * mask, 12, mask=mask)
        images.append(cg_sense(x * mask, mask, maps, num_iterations=30).abs())
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-3)
    # the maps of the scan, compressed, explain the compressed samples
    maps = estimate_sens_maps(kspace * mask, 12, mask=mask)
    image = cg_sense(virtual * mask, mask, compress_coils(maps, matrix), num_iterations=30)
    torch.testing.assert_close(image, cg_sense(kspace * mask, mask, maps, num_iterations=30), rtol=1e-4, atol=1e-4)


def test_compression_is_the_same_for_any_number_of_leading_axes() -> None:
    data = calibration(2, 5, 6, 4)
    matrix = coil_compression_matrix(data)[0][:2]
    batch = compress_coils(data, matrix)
    assert batch.shape == (2, 2, 6, 4, 2)
    for found, one in zip(batch, data, strict=True):
        torch.testing.assert_close(found, compress_coils(one, matrix))


def test_without_a_signal_there_is_no_energy() -> None:
    matrix, energies = coil_compression_matrix(torch.zeros(2, 3, 4, 4, 2))
    assert not energies.any()
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(3, dtype=torch.complex64))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"calibration must have shape \(batch, coils, rows, cols, 2\), got \(3, 4"):
        coil_compression_matrix(torch.zeros(3, 4, 4, 2))
    with pytest.raises(ValueError, match="calibration must be finite"):
        coil_compression_matrix(torch.full((1, 3, 4, 4, 2), torch.nan))
    with pytest.raises(
        ValueError, match=r"matrix must have shape \(n, coils\) .*, got \(2, 3\) and \(1, 4, 5, 6, 2\)"
    ):
        compress_coils(torch.zeros(1, 4, 5, 6, 2), torch.zeros(2, 3))


def bart_cc(folder: Path, center: np.ndarray) -> Tensor:
    """All rows of the matrix of BART's ``cc`` for a center (coils, rows, cols)."""
    array = center.transpose(1, 2, 0)[:, :, None]
    (folder / "center.hdr").write_text(f"# Dimensions\n{' '.join(map(str, array.shape))}\n")
    array.astype("<c8").ravel(order="F").tofile(folder / "center.cfl")
    subprocess.run(["bart", "cc", "-A", "-M", "center", "matrix"], cwd=folder, check=True, capture_output=True)
    coils = len(center)
    return torch.from_numpy(np.fromfile(folder / "matrix.cfl", "<c8").reshape(coils, coils)).conj()


@needs_data()
@needs_bart
@pytest.mark.parametrize(
    "name",
    [
        "multicoil/invivo_brain_16ch.npy",
        "multicoil/phantom_16ch.npy",
        "multicoil/phantom_b_16ch.npy",
        "undersampled/brain_8ch_poisson8x.npy",
    ],
)
def test_agrees_with_bart_on_real_scans(tmp_path: Path, name: str) -> None:
    kspace = torch.view_as_real(torch.from_numpy(np.load(DATA / name)))
    center = crop_center(kspace)
    theirs = bart_cc(tmp_path, torch.view_as_complex(center.contiguous()).numpy())
    ours, energies = coil_compression_matrix(center[None])
    count = len(ours) // 2
    assert energies[:count].sum() > 0.98
    # the same virtual coils, up to their phases
    product = (ours[:count] @ theirs[:count].mH).abs()
    torch.testing.assert_close(product, torch.eye(count), rtol=0, atol=1e-3)
    spans = [matrix[:count].mH @ matrix[:count] for matrix in (ours, theirs)]
    torch.testing.assert_close(*spans, rtol=0, atol=1e-3)
    compressed = [torch.view_as_complex(compress_coils(kspace, m[:count])) for m in (ours, theirs)]
    phases = (compressed[1].conj() * compressed[0]).sum(dim=(1, 2)).sgn()
    error = compressed[0] - phases[:, None, None] * compressed[1]
    assert error.norm() < 1e-4 * compressed[0].norm()
