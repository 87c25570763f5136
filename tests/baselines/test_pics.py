import shutil
import subprocess
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import sigpy
import torch
from helpers import column_mask, smooth_maps

from fastmri_ufloss.baselines import pics
from fastmri_ufloss.mri import cg_sense, image_scale, sens_expand, sens_reduce

Regularizer = Literal["wavelet", "total_variation"]
both = pytest.mark.parametrize("regularizer", get_args(Regularizer))


def phantom(rows: int, cols: int) -> torch.Tensor:
    """Ellipses of constant intensity and phase, (1, rows, cols)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    image = torch.zeros(1, rows, cols, dtype=torch.complex64)
    for value, *center, height, width in (
        (0.6, 0, 0, 0.85, 0.7),
        (0.4, 0.2, 0.2, 0.3, 0.3),
        (0.2j, -0.3, -0.2, 0.2, 0.3),
        (-0.5, 0.4, -0.3, 0.1, 0.15),
    ):
        image[:, ((y - center[0]) / height) ** 2 + ((x - center[1]) / width) ** 2 <= 1] += value
    return image


def points(batch: int, rows: int, cols: int, *, share: float = 0.25, seed: int = 0) -> torch.Tensor:
    mask = torch.rand(batch, 1, rows, cols, 1, generator=torch.Generator().manual_seed(seed)) < share
    mask[:, :, rows // 2 - 6 : rows // 2 + 6, cols // 2 - 6 : cols // 2 + 6] = True
    return mask


def scan(image: torch.Tensor, mask: torch.Tensor, *, noise: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    maps = smooth_maps(len(image), 4, *image.shape[1:])
    kspace = sens_expand(torch.view_as_real(image[:, None]), maps)
    kspace += noise * torch.randn(kspace.shape, generator=torch.Generator().manual_seed(1))
    return kspace * mask, maps


def error(image: torch.Tensor, reference: torch.Tensor) -> float:
    return float((image - reference).norm() / reference.norm())


def sparsity(image: np.ndarray, regularizer: str) -> float:
    if regularizer == "wavelet":
        return float(np.abs(sigpy.fwt(image)).sum())
    return float(sum(np.abs(image - np.roll(image, 1, axis)).sum() for axis in (0, 1)))


@both
def test_without_weight_a_full_scan_gives_its_image(regularizer: Regularizer) -> None:
    image, mask = phantom(33, 40), torch.ones(1, 1, 1, 40, 1)
    kspace, maps = scan(image, mask, noise=0)
    assert error(pics(kspace, mask, maps, regularizer=regularizer, lam=0), image) < 1e-3


@both
@pytest.mark.parametrize("kind", ["points", "columns"])
def test_a_sparse_image_is_nearer_than_zero_filled_and_cg_sense(regularizer: Regularizer, kind: str) -> None:
    image = phantom(64, 60)
    mask = points(1, 64, 60) if kind == "points" else column_mask(1, 60, every=4, center=10)
    kspace, maps = scan(image, mask, noise=0.03)
    result = pics(kspace, mask, maps, regularizer=regularizer, lam=0.01)
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    part = 0.92 if regularizer == "wavelet" else 0.7  # the phantom is sparser in its differences
    assert error(result, image) < part * error(cg_sense(kspace, mask, maps), image)
    assert error(result, image) < part * error(zero_filled, image)


@both
def test_it_minimizes_its_objective(regularizer: Regularizer) -> None:
    image, mask, lam = phantom(40, 40), points(1, 40, 40), 0.01
    kspace, maps = scan(image, mask)
    start = cg_sense(kspace, mask, maps)
    scale = image_scale(start)

    def objective(x: torch.Tensor) -> float:
        misfit = (sens_expand(torch.view_as_real((x / scale)[:, None]), maps) - kspace / scale) * mask
        return float(misfit.square().sum() / 2) + lam * sparsity((x / scale)[0].numpy(), regularizer)

    few, many, most = (
        objective(pics(kspace, mask, maps, regularizer=regularizer, lam=lam, num_iterations=n))
        for n in (3, 100, 1000)
    )
    assert objective(start) > few > many >= most
    assert many < 1.01 * most  # the default number of iterations has converged
    reached = pics(kspace, mask, maps, regularizer=regularizer, lam=lam, num_iterations=1000)
    for seed in range(3):
        away = torch.randn(reached.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)
        assert objective(reached + 0.01 * scale * away) > most


@both
def test_the_unit_does_not_matter(regularizer: Regularizer) -> None:
    mask = points(1, 24, 30)
    kspace, maps = scan(phantom(24, 30), mask)
    expected = pics(kspace, mask, maps, regularizer=regularizer, num_iterations=20)
    actual = pics(1e-6 * kspace, mask, maps, regularizer=regularizer, num_iterations=20)
    torch.testing.assert_close(1e6 * actual, expected, rtol=0, atol=1e-5)


@both
def test_a_batch_is_its_samples(regularizer: Regularizer) -> None:
    image = torch.cat([phantom(20, 25), 100 * phantom(20, 25).flip(1)])
    mask = points(2, 20, 25)
    kspace, maps = scan(image, mask)
    together = pics(kspace, mask, maps, regularizer=regularizer, num_iterations=20)
    for i in range(2):
        alone = pics(kspace[i : i + 1], mask[i : i + 1], maps[i : i + 1], regularizer=regularizer, num_iterations=20)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
    one_mask = points(1, 20, 25)
    torch.testing.assert_close(
        pics(kspace * one_mask, one_mask, maps, num_iterations=3),
        pics(kspace * one_mask, one_mask.expand(2, -1, -1, -1, -1), maps, num_iterations=3),
    )


@both
def test_no_random_number_is_drawn(regularizer: Regularizer) -> None:
    mask = points(1, 20, 20)
    kspace, maps = scan(phantom(20, 20), mask)
    np.random.seed(0)
    first = pics(kspace, mask, maps, regularizer=regularizer, num_iterations=5)
    drawn = np.random.rand()
    second = pics(kspace, mask, maps, regularizer=regularizer, num_iterations=5)
    np.random.seed(0)
    assert drawn == np.random.rand()
    assert torch.equal(first, second)


@both
def test_options_change_the_result(regularizer: Regularizer) -> None:
    mask = points(1, 21, 19)
    kspace, maps = scan(phantom(21, 19), mask)
    default = pics(kspace, mask, maps, regularizer=regularizer)
    assert default.shape == (1, 21, 19) and default.dtype == torch.complex64
    assert error(pics(kspace, mask, maps, regularizer=regularizer, lam=0.05), default) > 0.02
    assert error(pics(kspace, mask, maps, regularizer=regularizer, num_iterations=2), default) > 1e-3
    other = "wavelet" if regularizer == "total_variation" else "total_variation"
    assert error(pics(kspace, mask, maps, regularizer=other), default) > 1e-3


@both
def test_an_acquired_zero_is_a_sample(regularizer: Regularizer) -> None:
    """All of k-space was acquired, most of it is zero: the image must agree, although others are sparser."""
    mask, all_points = points(1, 24, 24, share=0.4), torch.ones(1, 1, 24, 24, 1)
    kspace, maps = scan(phantom(24, 24), mask)
    with_zeros = pics(kspace, all_points, maps, regularizer=regularizer, lam=1e-4)
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    assert error(with_zeros, zero_filled) < 0.01
    assert error(pics(kspace, mask, maps, regularizer=regularizer, lam=1e-4), zero_filled) > 0.1


@both
def test_empty_kspace_gives_zero(regularizer: Regularizer) -> None:
    mask = points(2, 16, 16)
    kspace, maps = scan(torch.cat([phantom(16, 16)] * 2), mask)
    kspace[0] = 0
    result = pics(kspace, mask, maps, regularizer=regularizer, num_iterations=5)
    assert not result[0].any() and result[1].abs().sum() > 0 and result.isfinite().all()
    assert not pics(kspace, mask, torch.zeros_like(maps), regularizer=regularizer, num_iterations=5).any()


def test_bad_arguments_are_named() -> None:
    mask = points(1, 16, 16)
    kspace, maps = scan(phantom(16, 16), mask)
    with pytest.raises(ValueError, match="regularizer must be"):
        pics(kspace, mask, maps, regularizer="tv")  # type: ignore[arg-type]
    for lam in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lam must be"):
            pics(kspace, mask, maps, lam=lam)
    with pytest.raises(ValueError, match="num_iterations must be"):
        pics(kspace, mask, maps, num_iterations=0)
    with pytest.raises(ValueError, match="mask must have shape"):
        pics(kspace, mask[..., :8, :], maps)
    with pytest.raises(ValueError, match="sens_maps must have the shape"):
        pics(kspace, mask, maps[:, :2])


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_total_variation_is_close_to_that_of_bart(tmp_path: Path) -> None:
    """BART joins both differences of a pixel to one magnitude, so that the two are close and not equal."""
    mask, lam = points(1, 48, 48), 0.01
    kspace, maps = scan(phantom(48, 48), mask)
    scale = float(image_scale(cg_sense(kspace, mask, maps)))
    arrays = {"kspace": kspace / scale, "maps": maps, "pattern": torch.view_as_real(mask[..., 0] + 0j)}
    for name, array in arrays.items():
        data = torch.view_as_complex(array[0]).permute(1, 2, 0).numpy()
        (tmp_path / f"{name}.hdr").write_text(f"# Dimensions\n48 48 1 {data.shape[2]}\n")
        data.ravel(order="F").astype(np.complex64).tofile(tmp_path / f"{name}.cfl")
    command = ["bart", "pics", "-w1", "-i300", "-p", "pattern", "-R", f"T:3:0:{lam}", "kspace", "maps", "result"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    bart = torch.from_numpy(np.fromfile(tmp_path / "result.cfl", np.complex64).reshape(48, 48, order="F"))
    ours = pics(kspace, mask, maps, regularizer="total_variation", lam=lam, num_iterations=300)
    assert error(ours[0], scale * bart) < 0.05
