from functools import partial
from typing import Literal, get_args

import numpy as np
import pytest
import sigpy
import sigpy.mri.app
import torch
from helpers import column_mask, randn_complex, smooth_maps

from fastmri_ufloss.baselines import compressed_sensing, pics
from fastmri_ufloss.baselines.compressed_sensing import SenseEncoding
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
    if regularizer == "wavelet":  # the mean over grids
        shifts = np.random.default_rng(5).integers(32, size=(20, 2))
        grids = (np.roll(image, shift, axis=(0, 1)) for shift in shifts)
        return float(np.mean([np.abs(sigpy.fwt(grid, wave_name="db2")).sum() for grid in grids]))
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
        objective(pics(kspace, mask, maps, regularizer=regularizer, lam=lam, num_iterations=n)) for n in (3, 100, 500)
    )
    assert min(few, objective(start)) > many >= 0.9999 * most  # the first steps of a primal-dual method may rise
    assert many < 1.01 * most  # the default number of iterations has converged
    reached = pics(kspace, mask, maps, regularizer=regularizer, lam=lam, num_iterations=500)
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


@both
def test_where_no_coil_sees_anything_the_image_is_zero(regularizer: Regularizer) -> None:
    mask = points(1, 24, 30)
    kspace, maps = scan(phantom(24, 30), mask)
    maps[..., :9, 20:, :] = 0  # rows and columns differ: the place must be right
    image = pics(kspace, mask, maps, regularizer=regularizer, num_iterations=20)
    np.testing.assert_array_equal((image == 0)[0], (maps == 0).all(dim=-1).all(dim=1)[0])


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


@both
@pytest.mark.parametrize("kind", ["points", "columns"])
def test_without_shifts_it_is_that_of_sigpy(
    regularizer: Regularizer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same iterations with sigpy's own operators, in centered coordinates and with all transforms."""
    monkeypatch.setattr(compressed_sensing, "_MAX_SHIFT", 1)
    mask = points(1, 31, 26) if kind == "points" else column_mask(1, 26, center=8)
    kspace, maps = scan(phantom(31, 26), mask)
    start = cg_sense(kspace, mask, maps)
    scale = float(image_scale(start))
    inputs = (torch.view_as_complex(kspace[0]).numpy() / scale, torch.view_as_complex(maps[0]).numpy(), 0.01)
    options = {
        "weights": mask[0, 0, ..., 0].float().expand(31, -1).numpy(),
        "x": start[0].numpy() / scale,
        "max_iter": 20,
        "show_pbar": False,
    }
    if regularizer == "wavelet":
        expected = sigpy.mri.app.L1WaveletRecon(*inputs, wave_name="db2", alpha=1, **options).run()
    else:
        steps = {"sigma": compressed_sensing._DUAL_STEP, "tau": 1 / (9 * compressed_sensing._DUAL_STEP)}
        expected = sigpy.mri.app.TotalVariationRecon(*inputs, **steps, **options).run()
    actual = pics(kspace, mask, maps, regularizer=regularizer, lam=0.01, num_iterations=20)[0]
    assert error(actual, scale * torch.from_numpy(expected)) < 1e-4


def test_shifts_of_the_grid_make_the_error_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = points(1, 64, 60)
    kspace, maps = scan(phantom(64, 60), mask, noise=0.1)
    shifted = error(pics(kspace, mask, maps, lam=0.03), phantom(64, 60))
    monkeypatch.setattr(compressed_sensing, "_MAX_SHIFT", 1)
    assert shifted < 0.93 * error(pics(kspace, mask, maps, lam=0.03), phantom(64, 60))


def test_the_encoding_is_that_of_sense_and_has_its_adjoint() -> None:
    mask = points(1, 7, 6)
    maps, image, kspace = smooth_maps(1, 3, 7, 6), randn_complex(1, 7, 6), randn_complex(3, 7, 6, seed=1)
    corner = partial(torch.fft.ifftshift, dim=(-2, -1))
    encoding = SenseEncoding(corner(torch.view_as_complex(maps[0])), corner(mask[0, ..., 0].float()), (-2, -1))
    expected = torch.view_as_complex((sens_expand(torch.view_as_real(image[:, None]), maps) * mask).contiguous())[0]
    samples = torch.from_numpy(encoding(corner(image[0]).numpy()))
    torch.testing.assert_close(samples, corner(expected))
    back = torch.from_numpy(encoding.H(kspace.numpy()))
    torch.testing.assert_close(
        torch.vdot(kspace.flatten(), samples.flatten()), torch.vdot(back.flatten(), corner(image[0]).flatten())
    )
