import warnings
from typing import Any

import fastmri
import numpy as np
import pytest
import sigpy.mri
import torch
from fastmri.data.subsample import EquispacedMaskFractionFunc, RandomMaskFunc
from fastmri.models.varnet import SensitivityModel
from helpers import DATA, column_mask, needs_data, randn_complex, smooth_maps
from torch import Tensor

from fastmri_ufloss.mri import cg_sense, count_center_lines, espirit, estimate_sens_maps, sens_expand
from fastmri_ufloss.mri.espirit import _calibration, _coil_matrices, _interpolate, _interpolation


def textured_object(rows: int, cols: int) -> Tensor:
    """A complex ellipse with structure, (rows, cols)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    inside = (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    return torch.polar((1 + 0.5 * torch.cos(17 * x) * torch.cos(13 * y)) * inside, 2 * x + y)


def simulate(rows: int = 64, cols: int = 64, coils: int = 6, *, noise: float = 0.003) -> tuple[Tensor, ...]:
    """k-space (1, coils, rows, cols, 2), the maps that it was made with, and where the object is."""
    maps, image = smooth_maps(1, coils, rows, cols), textured_object(rows, cols)
    kspace = sens_expand(torch.view_as_real(image[None, None]), maps)
    kspace = kspace + noise * torch.view_as_real(randn_complex(1, coils, rows, cols))
    return kspace, maps, image != 0


def complex_maps(maps: Tensor) -> Tensor:
    """(coils, rows, cols) of a batch of one."""
    return torch.view_as_complex(maps[0].contiguous())


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """|<a, b>| for each pixel, 1 for maps that are the same up to a phase."""
    return (a.conj() * b).sum(dim=0).abs()


def sigpy_maps(kspace: Tensor, **settings: float) -> Tensor:
    app = sigpy.mri.app.EspiritCalib(complex_maps(kspace).numpy(), crop=0.8, show_pbar=False, **settings)
    return torch.from_numpy(app.run())


def exact_eigenvectors(kspace: Tensor, lines: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues (rows, cols, coils) of the coil matrices and the eigenvectors, from torch."""
    samples = _coil_matrices(_calibration(kspace, [0], 24, min(lines, 24))[0], 6, 0.02)
    grids = [_interpolation(kspace.shape[2 + i], 1, samples.shape[1 + i], kspace.device) for i in (0, 1)]
    return torch.linalg.eigh(_interpolate(samples, *grids)[0])


@pytest.mark.parametrize("size", [(64, 64), (72, 50), (61, 47)])
def test_agrees_with_sigpy(size: tuple[int, int]) -> None:
    kspace, _, inside = simulate(*size)
    maps, reference = complex_maps(estimate_sens_maps(kspace, 24)), sigpy_maps(kspace)
    ours, theirs = maps.abs().sum(dim=0) > 0, reference.abs().sum(dim=0) > 0
    assert (ours & inside).sum() > 0.99 * inside.sum()
    assert (ours != theirs).float().mean() < 0.01
    both = ours & theirs
    assert inner_product(maps, reference)[both & inside].mean() >= 0.9999
    assert inner_product(maps, reference)[both].min() >= 0.99
    # the phase too: both refer to coil 0
    assert (maps - reference).abs()[:, both & inside].max() < 0.02


def test_agrees_with_sigpy_for_other_parameters() -> None:
    kspace, _, inside = simulate(48, 48)
    for ours, theirs in (
        ({"calibration_size": 16}, {"calib_width": 16}),
        ({"kernel_size": 4}, {"kernel_width": 4}),
        ({"threshold": 0.1}, {"thresh": 0.1}),
    ):
        maps, reference = complex_maps(estimate_sens_maps(kspace, 24, **ours)), sigpy_maps(kspace, **theirs)  # type: ignore[arg-type]
        both = inside & (maps.abs().sum(dim=0) > 0) & (reference.abs().sum(dim=0) > 0)
        assert both.sum() > 0.5 * inside.sum()
        assert inner_product(maps, reference)[both].mean() >= 0.9999
        assert not torch.equal(maps, complex_maps(estimate_sens_maps(kspace, 24)))


@pytest.mark.parametrize("lines", [4, 8, 12, 24])
def test_every_pixel_has_the_leading_eigenvector(lines: int) -> None:
    # large enough for several grids, of different strides per axis, and for several chunks of rows
    kspace, *_ = simulate(200, 61, noise=0.02)
    maps = complex_maps(estimate_sens_maps(kspace, lines, max_memory=2**20))
    values, vectors = exact_eigenvectors(kspace, lines)
    kept = maps.abs().sum(dim=0) > 0
    near_crop = (values[..., -1] - 0.8).abs() < 1e-3
    assert ((kept == (values[..., -1] > 0.8)) | near_crop).all()
    agreement = inner_product(maps, vectors[..., -1].permute(2, 0, 1))[kept]
    assert agreement.mean() > 0.99999
    assert agreement.min() > 0.999


def test_recovers_the_maps() -> None:
    kspace, true_maps, inside = simulate(96, 80, noise=0.001)
    agreement = inner_product(complex_maps(estimate_sens_maps(kspace, 24)), complex_maps(true_maps))
    assert agreement[inside].mean() > 0.999


@pytest.mark.parametrize("lines", [4, 8, 12])
def test_few_lines_are_enough_for_rough_maps(lines: int) -> None:
    kspace, true_maps, inside = simulate(noise=0.001)
    maps = complex_maps(estimate_sens_maps(kspace, lines))
    kept = inside & (maps.abs().sum(dim=0) > 0)
    assert kept.sum() > 0.95 * inside.sum()
    assert inner_product(maps, complex_maps(true_maps))[kept].mean() > {4: 0.95, 8: 0.98, 12: 0.99}[lines]


@pytest.mark.parametrize(("height", "width"), [(12, 12), (8, 8), (24, 8), (24, 6)])
def test_small_regions_have_enough_blocks(height: int, width: int) -> None:
    """The default is near the best of all widths, and no part of the object is cropped."""
    kspace, true_maps, inside = simulate(coils=16, noise=0.001)

    def error(kernel_size: int) -> float:
        maps = estimate_sens_maps(kspace, width, calibration_size=height, kernel_size=kernel_size)
        agreement = inner_product(complex_maps(maps), complex_maps(true_maps))
        return float((1 - agreement[inside]).mean())

    assert error(6) < 5e-4
    assert error(6) < 1.5 * min(error(size) for size in (2, 3, 4, 5)) + 1e-4


def test_warns_of_few_lines() -> None:
    kspace, *_ = simulate(32, 32, coils=3)
    with pytest.warns(UserWarning, match="5 center lines are rough"):
        estimate_sens_maps(kspace, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate_sens_maps(kspace, 6)


def test_norm_is_one_or_zero_and_coil_0_is_real() -> None:
    kspace, *_ = simulate()
    maps = complex_maps(estimate_sens_maps(kspace, 24))
    norm = maps.abs().square().sum(dim=0).sqrt()
    assert ((norm - 1).abs().minimum(norm) < 1e-5).all()
    assert 0 < (norm > 0.5).float().mean() < 1
    assert maps[0].imag.abs().max() < 1e-6
    assert maps[0].real.min() >= 0


def test_crop_is_the_smallest_eigenvalue_kept() -> None:
    kspace, *_ = simulate(noise=0.02)
    values, _ = exact_eigenvectors(kspace, 24)
    for crop in (0.5, 0.8, 0.95):
        kept = complex_maps(estimate_sens_maps(kspace, 24, crop=crop)).abs().sum(dim=0) > 0
        assert ((kept == (values[..., -1] > crop)) | ((values[..., -1] - crop).abs() < 1e-3)).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_does_not_depend_on_the_scale(scale: float) -> None:
    kspace, *_ = simulate()
    torch.testing.assert_close(
        estimate_sens_maps(kspace * scale, 24), estimate_sens_maps(kspace, 24), atol=1e-3, rtol=0
    )


def test_batch_equals_singles() -> None:
    kspace = torch.cat((simulate()[0], simulate(noise=0.05)[0], simulate(noise=0.01)[0]))
    lines = torch.tensor([24, 10, 24])
    batched = estimate_sens_maps(kspace, lines)
    for i in range(3):
        single = estimate_sens_maps(kspace[i : i + 1], int(lines[i]))
        torch.testing.assert_close(batched[i : i + 1], single, atol=1e-3, rtol=0)


def test_kept_coil_matrices_give_the_same_maps() -> None:
    kspace, lines = torch.cat((simulate()[0], simulate(noise=0.05)[0])), torch.tensor([24, 10])
    kept: dict[int, torch.Tensor] = {}
    maps = estimate_sens_maps(kspace, lines, coil_matrices=kept)
    assert torch.equal(maps, estimate_sens_maps(kspace, lines))
    # they are taken, not made again: those of the other slice are no maps of this one
    alone = {i: x for i, x in kept.items() if i == 1}
    assert torch.equal(estimate_sens_maps(kspace, lines, coil_matrices=alone), maps)
    assert alone[1] is kept[1] and torch.equal(alone[0], kept[0])
    first = estimate_sens_maps(kspace[:1], 24, coil_matrices={0: kept[0]})
    other = estimate_sens_maps(kspace[1:], 24, coil_matrices={0: kept[0]})
    torch.testing.assert_close(other, first)
    # of another size they are no use, and made again
    few = estimate_sens_maps(kspace[:1], 10)
    assert torch.equal(estimate_sens_maps(kspace[:1], 10, coil_matrices={0: kept[0]}), few)


def test_chunks_do_not_show() -> None:
    kspace = torch.cat((simulate(45, 52)[0], simulate(45, 52, noise=0.05)[0]))
    whole = estimate_sens_maps(kspace, 20, max_memory=2**30)
    for max_memory in (1, 300_000, 2_000_000):
        torch.testing.assert_close(estimate_sens_maps(kspace, 20, max_memory=max_memory), whole, atol=1e-3, rtol=0)


@pytest.mark.parametrize("cols", [48, 51])
@pytest.mark.parametrize("lines", [9, 16, 30])
def test_reads_the_center_only(cols: int, lines: int) -> None:
    kspace, *_ = simulate(40, cols)
    expected = estimate_sens_maps(kspace, lines)
    pad = (cols - lines + 1) // 2
    changed = torch.full_like(kspace, float("nan"))
    changed[:, :, 8:32, pad : pad + lines] = kspace[:, :, 8:32, pad : pad + lines]
    assert torch.equal(estimate_sens_maps(changed, lines), expected)


def test_counts_the_lines_where_none_are_given() -> None:
    kspace, *_ = simulate(40, 50)
    kspace = torch.cat((kspace, kspace, torch.zeros_like(kspace)))
    masks = torch.cat((column_mask(1, 50, center=10), column_mask(1, 50, center=20), column_mask(1, 50)))
    assert count_center_lines(masks).tolist() == [10, 20, 8]
    maps = estimate_sens_maps(kspace * masks)
    for given in (0, torch.tensor([10, 0, 8]), torch.tensor([10, 20, 8])):
        assert torch.equal(estimate_sens_maps(kspace * masks, given), maps)
    # rows that were never measured do not matter
    kspace[:, :, :5] = 0
    assert torch.equal(estimate_sens_maps(kspace * masks), maps)


def test_single_coil_and_empty_kspace() -> None:
    kspace = torch.view_as_real(randn_complex(2, 1, 12, 14))
    kspace[1] = 0
    maps = torch.view_as_complex(estimate_sens_maps(kspace, 8))
    assert (maps[0] == 1).all() and (maps[1] == 0).all()
    for lines in (8, None):
        assert (estimate_sens_maps(torch.zeros(2, 4, 32, 30, 2), lines) == 0).all()


def test_two_sets_for_a_folded_object() -> None:
    # every second row: two places of the object, with different coil sensitivities, in one pixel
    folded = simulate(128, 64, 8, noise=0.001)[0][:, :, ::2].contiguous()
    maps = estimate_sens_maps(folded, 24, num_maps=2)
    assert maps.shape == (1, 2, 8, 64, 64, 2)
    sets = torch.view_as_complex(maps[0])
    kept = sets.abs().sum(dim=1) > 0
    assert not (kept[1] & ~kept[0]).any()
    assert 0.1 < kept[1].float().mean() < 0.9
    product = torch.einsum("mcrp,ncrp->rpmn", sets.conj(), sets)
    assert (product[kept[1]] - torch.eye(2)).abs().max() < 1e-5
    values, vectors = exact_eigenvectors(folded, 24)
    distinct = kept[1] & (values[..., -1] - values[..., -2] > 0.02)
    for i in (0, 1):
        agreement = inner_product(sets[i], vectors[..., -1 - i].permute(2, 0, 1))
        assert agreement[distinct].min() > 0.999
    # where both eigenvalues are nearly the same, only the space that they span is determined
    outside = sets - torch.einsum("rpcm,rpdm,ndrp->ncrp", vectors[..., -2:], vectors[..., -2:].conj(), sets)
    assert outside[:, :, kept[1]].abs().max() < 0.03


def test_warns_where_one_set_is_not_enough() -> None:
    folded = simulate(64, 128, 8, noise=0.001)[0][:, :, :, ::2].contiguous()
    with pytest.warns(
        UserWarning, match="num_maps=1 leaves .*% of the center of k-space unexplained, which num_maps=2"
    ):
        estimate_sens_maps(folded, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate_sens_maps(folded, 24, num_maps=2)
        estimate_sens_maps(simulate(64, 64, 8, noise=0.001)[0], 24)
        estimate_sens_maps(simulate(32, 32, 2)[0], 24, num_maps=2)  # as many sets as coils


def test_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        estimate_sens_maps(simulate(32, 32)[0], 16)
        with pytest.raises(ValueError, match="finite"):
            estimate_sens_maps(torch.full((1, 3, 20, 20, 2), float("nan")), 8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_float32_and_no_gradients_under_autocast() -> None:
    kspace, *_ = simulate(48, 40)
    expected = estimate_sens_maps(kspace, 16)
    with torch.autocast("cpu", torch.bfloat16):
        maps = estimate_sens_maps(kspace.requires_grad_(), 16)
    assert maps.dtype == torch.float32 and not maps.requires_grad
    assert torch.equal(maps, expected)
    assert estimate_sens_maps(kspace.double(), 16).dtype == torch.float32


@pytest.mark.parametrize("mask_type", [RandomMaskFunc, EquispacedMaskFractionFunc])
@pytest.mark.parametrize("cols", [40, 41, 64])
@pytest.mark.parametrize("fraction", [0.08, 0.2])
def test_count_center_lines_of_fastmri_masks(mask_type: type, cols: int, fraction: float) -> None:
    model = SensitivityModel(2, 1)
    for seed in range(20):
        mask, lines = mask_type([fraction], [4])((1, 1, 20, cols, 2), seed=seed)
        count = int(count_center_lines(mask))
        theirs = int(model.get_pad_and_num_low_freqs(mask)[1])
        # with an odd number of columns theirs may reach one too far to the right
        assert count == theirs or (cols % 2 == 1 and count == theirs - 2 and lines <= theirs)
        pad = (cols - count + 1) // 2
        assert mask[..., pad : pad + count, :].all()
        assert count >= lines - 1 - cols % 2


def test_count_center_lines_of_other_masks() -> None:
    mask = torch.zeros(5, 1, 6, 12, 1)
    mask[0] = 1  # all: fastMRI's own count is 1 here
    mask[1, :, :, 6] = 1  # the center alone
    mask[2, :, :, :9] = 1  # one side to its end
    mask[3, :, :, 3:9] = 1
    mask[3, :, 2, 4] = 0  # one point missing: the square beside it is larger than the lines
    assert count_center_lines(mask).tolist() == [12, 1, 6, 3, 0]
    assert count_center_lines(torch.ones(1, 1, 1, 11, 1)).tolist() == [11]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("num_low_frequencies", {"num_low_frequencies": 3}),
        ("num_low_frequencies", {"num_low_frequencies": -8}),
        ("num_low_frequencies", {"num_low_frequencies": 21}),
        ("num_low_frequencies", {"num_low_frequencies": torch.tensor([8, 8])}),
        ("calibration_size", {"calibration_size": 3}),
        ("kernel_size", {"kernel_size": 1}),
        ("threshold", {"threshold": 0.0}),
        ("crop", {"crop": 1.0}),
        ("num_maps", {"num_maps": 4}),
        ("num_maps", {"num_maps": 0}),
    ],
)
def test_bad_arguments(name: str, settings: dict) -> None:
    with pytest.raises(ValueError, match=name):
        estimate_sens_maps(torch.ones(1, 3, 20, 20, 2), **settings)


def test_bad_kspace() -> None:
    for shape in ((3, 20, 20, 2), (1, 3, 20, 20), (1, 3, 3, 20, 2)):
        with pytest.raises(ValueError, match="masked_kspace"):
            estimate_sens_maps(torch.ones(shape), 8)
    with pytest.raises(ValueError, match="finite"):
        estimate_sens_maps(torch.full((1, 3, 20, 20, 2), float("nan")), 8)
    with pytest.raises(ValueError, match="num_low_frequencies"):
        estimate_sens_maps(torch.ones(1, 3, 20, 20, 2) * column_mask(1, 20, every=2, center=2))
    with pytest.raises(ValueError, match="mask"):
        count_center_lines(torch.ones(1, 1, 20))


@needs_data()
@pytest.mark.parametrize("name", ["invivo_brain_16ch", "phantom_b_16ch"])
def test_real_data(name: str) -> None:
    full = torch.view_as_real(torch.from_numpy(np.load(DATA / "multicoil" / f"{name}.npy")))[None]
    maps, reference = estimate_sens_maps(full, 24), torch.view_as_real(sigpy_maps(full))[None]
    kept = (complex_maps(maps).abs().sum(dim=0) > 0) & (complex_maps(reference).abs().sum(dim=0) > 0)
    agreement = inner_product(complex_maps(maps), complex_maps(reference))
    image = fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(full)), dim=1)
    inside = kept & (image[0] > 0.1 * image.max())
    assert inside.float().mean() > 0.2
    assert agreement[inside].mean() >= 0.999

    mask = column_mask(1, full.shape[3], every=4, center=24)

    def error(sens_maps: Tensor) -> float:
        result = cg_sense(full * mask, mask, sens_maps).abs()
        return float((result - image)[0, inside].norm() / image[0, inside].norm())

    ours, theirs = error(maps), error(reference)
    assert ours < 1.01 * theirs
    assert ours < 0.25


@pytest.mark.parametrize("num_maps", [1, 2])
def test_no_solver_gets_more_matrices_than_a_gpu_takes(num_maps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, solve = [], torch.linalg.eigh

    def noted(matrix: Tensor) -> Any:
        sizes.append(matrix.shape[:-2].numel())
        return solve(matrix)

    noise = torch.randn(1, 4, 96, 128, 2, generator=torch.Generator().manual_seed(0))  # no pixel converges
    expected = estimate_sens_maps(noise, num_maps=num_maps, max_memory=2**40)
    monkeypatch.setattr(torch.linalg, "eigh", noted)
    monkeypatch.setattr(espirit, "_CPU_CHUNK_BYTES", 2**40)  # as on a GPU, all rows at once
    found = estimate_sens_maps(noise, num_maps=num_maps, max_memory=2**40)
    assert sum(sizes) > 4096 >= max(sizes) and min(sizes) > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
