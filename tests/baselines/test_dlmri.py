from typing import Any

import numpy as np
import pytest
import torch
from helpers import column_mask, smooth_maps
from sklearn.feature_extraction.image import extract_patches_2d, reconstruct_from_patches_2d

from fastmri_ufloss.baselines import dictionary_learning, dlmri
from fastmri_ufloss.baselines.dictionary_learning import cosine_dictionary
from fastmri_ufloss.mri import cg_sense, sens_expand, sens_reduce

QUICK: dict[str, Any] = {"num_iterations": 4, "num_atoms": 40, "sparsity": 5}


@pytest.fixture(autouse=True)
def _few_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning takes most of the time."""
    monkeypatch.setattr(dictionary_learning, "_NUM_SIGNALS", 300)


def texture(rows: int, cols: int) -> torch.Tensor:
    """Discs on a grid, with smooth phase, (1, rows, cols)."""
    y, x = torch.meshgrid(torch.arange(rows) / 8.0, torch.arange(cols) / 8.0, indexing="ij")
    inside = ((y % 1.5 - 0.75) ** 2 + (x % 1.5 - 0.75) ** 2 < 0.3).float()
    return torch.polar(0.3 + 0.7 * inside, 0.2 * x - 0.1 * y)[None]


def points(batch: int, rows: int, cols: int, *, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    mask = torch.rand(batch, 1, rows, cols, 1, generator=torch.Generator().manual_seed(seed)) < share
    mask[:, :, rows // 2 - 5 : rows // 2 + 5, cols // 2 - 5 : cols // 2 + 5] = True
    return mask


def scan(
    image: torch.Tensor, mask: torch.Tensor, *, coils: int = 4, noise: float = 0.03
) -> tuple[torch.Tensor, torch.Tensor]:
    maps = smooth_maps(len(image), coils, *image.shape[1:])
    if coils == 1:
        maps = torch.view_as_real(torch.ones(maps.shape[:-1], dtype=torch.complex64))
    kspace = sens_expand(torch.view_as_real(image[:, None]), maps)
    kspace += noise * torch.randn(kspace.shape, generator=torch.Generator().manual_seed(1))
    return kspace * mask, maps


def error(image: torch.Tensor, reference: torch.Tensor) -> float:
    return float((image - reference).norm() / reference.norm())


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("kind", ["points", "columns"])
def test_it_is_nearer_than_zero_filled_and_cg_sense(kind: str, coils: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary_learning, "_NUM_SIGNALS", 1500)
    image = texture(64, 60)
    mask = points(1, 64, 60) if kind == "points" else column_mask(1, 60, every=3, center=10)
    kspace, maps = scan(image, mask, coils=coils)
    result = dlmri(kspace, mask, maps, lam=0.05, num_iterations=20)
    assert result.shape == (1, 64, 60) and result.dtype == torch.complex64
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    part = 0.9 if coils == 1 else 0.75
    assert error(result, image) < part * error(cg_sense(kspace, mask, maps), image)
    assert error(result, image) < part * error(zero_filled, image)


def test_noise_of_a_full_scan_is_removed_and_more_with_a_larger_weight() -> None:
    image, mask = texture(48, 40), torch.ones(1, 1, 1, 40, 1)
    kspace, maps = scan(image, mask, noise=0.1)
    weights = (1e-4, 0.01, 0.1, 0.3, 3.0)
    results = [dlmri(kspace, mask, maps, lam=lam, **QUICK) for lam in weights]
    measured = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    assert error(results[0], measured) < 1e-3  # soft consistency is nearly hard without weight
    distances = [error(result, measured) for result in results]
    assert distances == sorted(distances) and distances[-1] > 0.2
    assert error(results[2], image) < 0.92 * error(measured, image)


def test_data_consistency_is_that_of_its_equation() -> None:
    """With one tolerance so large that all patches are their mean, the fixed point is that of two linear maps."""
    image, mask = texture(20, 24), torch.ones(1, 1, 1, 24, 1)
    kspace, maps = scan(image, mask, coils=1)
    lam, size = 5.0, 3
    result = dlmri(kspace, mask, maps, lam=lam, patch_size=size, num_atoms=8, sparsity=1, num_iterations=200)
    box = torch.zeros(20, 24)
    box[:size, :size] = 1 / size**2
    blur = torch.fft.fft2(box).abs().square()  # of the mean of a patch, and of the patches' mean
    measured = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    expected = torch.fft.ifft2(torch.fft.fft2(measured) / (1 + 4 * lam * (1 - blur)))
    assert error(result, expected) < 1e-5


def test_patches_and_their_mean_are_those_of_scikit_learn() -> None:
    image = texture(19, 23)[0] * torch.randn(19, 23, generator=torch.Generator().manual_seed(0))
    extended = np.pad(image.numpy(), ((0, 4), (0, 4)), mode="wrap")
    expected = np.stack([extract_patches_2d(part, (5, 5)) for part in (extended.real, extended.imag)], axis=1)
    actual = torch.cat([dictionary_learning._patches(image, 5, 0, 7), dictionary_learning._patches(image, 5, 7, 19)])
    np.testing.assert_array_equal(actual.numpy(), expected.reshape(-1, 2, 25))
    # all atoms and no tolerance: nothing is lost
    all_atoms = cosine_dictionary(5, 24)
    torch.testing.assert_close(
        dictionary_learning._approximate(image, all_atoms, 0.0, 24)[0], image, atol=1e-4, rtol=1e-4
    )
    # a large tolerance: means only
    means = expected.reshape(-1, 2, 25).mean(axis=2)
    whole = np.zeros((2, 19, 23))
    for part in range(2):
        patches = np.broadcast_to(means[:, part, None, None], (19 * 23, 5, 5))
        sums = reconstruct_from_patches_2d(patches, (23, 27))
        counts = np.minimum(np.minimum(np.arange(23) + 1, 5), 23 - np.arange(23))
        along = np.minimum(np.minimum(np.arange(27) + 1, 5), 27 - np.arange(27))
        sums = sums * counts[:, None] * along
        sums[:4] += sums[19:]
        sums[:, :4] += sums[:, 23:]
        whole[part] = sums[:19, :23] / 25
    blurred = dictionary_learning._approximate(image, all_atoms, 100.0, 24)[0]
    np.testing.assert_allclose(blurred.numpy(), whole[0] + 1j * whole[1], atol=1e-5)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    image, atoms = texture(30, 26)[0], cosine_dictionary(4, 30)
    whole = dictionary_learning._approximate(image, atoms, 0.05, 4)
    for size in (1, 100, 26 * 29):
        monkeypatch.setattr(dictionary_learning, "_CHUNK", size)
        torch.testing.assert_close(
            dictionary_learning._approximate(image, atoms, 0.05, 4), whole, rtol=1e-5, atol=1e-6
        )


def test_the_unit_does_not_matter() -> None:
    mask = points(1, 40, 36)
    kspace, maps = scan(texture(40, 36), mask)
    expected = dlmri(kspace, mask, maps, **QUICK)
    assert error(2.0**20 * dlmri(2.0**-20 * kspace, mask, maps, **QUICK), expected) < 1e-6
    assert error(1e6 * dlmri(1e-6 * kspace, mask, maps, **QUICK), expected) < 1e-3


def test_a_batch_is_its_samples() -> None:
    image = torch.cat([texture(32, 30), 100 * texture(32, 30).flip(1)])
    mask = points(2, 32, 30)
    kspace, maps = scan(image, mask)
    together = dlmri(kspace, mask, maps, **QUICK)
    for i in range(2):
        alone = dlmri(kspace[i : i + 1], mask[i : i + 1], maps[i : i + 1], **QUICK)
        assert torch.equal(together[i : i + 1], alone)
    one_mask = points(1, 32, 30)
    assert torch.equal(
        dlmri(kspace * one_mask, one_mask, maps, **QUICK),
        dlmri(kspace * one_mask, one_mask.expand(2, -1, -1, -1, -1), maps, **QUICK),
    )


def test_it_does_not_depend_on_global_random_states() -> None:
    """More patches are there than are learned from."""
    mask = points(1, 64, 64)
    kspace, maps = scan(texture(64, 64), mask, noise=0.1)
    first = dlmri(kspace, mask, maps, **QUICK)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert torch.equal(dlmri(kspace, mask, maps, **QUICK), first)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


def test_options_change_the_result() -> None:
    mask = points(1, 31, 29)
    kspace, maps = scan(texture(31, 29), mask)
    default = dlmri(kspace, mask, maps, **QUICK)
    for option in ({"lam": 0.1}, {"patch_size": 4}, {"num_atoms": 20}, {"sparsity": 1}, {"num_iterations": 6}):
        assert error(dlmri(kspace, mask, maps, **{**QUICK, **option}), default) > 1e-3, option


def test_learned_atoms_are_better_than_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    image = texture(64, 60)
    mask = column_mask(1, 60, every=3, center=10)
    kspace, maps = scan(image, mask)
    monkeypatch.setattr(dictionary_learning, "_NUM_SIGNALS", 1500)
    learned = dlmri(kspace, mask, maps, num_atoms=60, num_iterations=15)
    monkeypatch.setattr(dictionary_learning, "_LEARNED", ())
    cosines = dlmri(kspace, mask, maps, num_atoms=60, num_iterations=15)
    assert error(learned, image) < 0.98 * error(cosines, image)


def test_an_acquired_zero_is_a_sample() -> None:
    mask, all_points = points(1, 32, 32, share=0.4), torch.ones(1, 1, 32, 32, 1)
    kspace, maps = scan(texture(32, 32), mask)
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    # the k-space of the image that has these zeros in one coil only
    kspace, maps = scan(zero_filled, all_points, coils=1, noise=0)
    assert error(dlmri(kspace, all_points, maps, lam=1e-4, **QUICK), zero_filled) < 0.01
    assert error(dlmri(kspace * mask, mask, maps, lam=1e-4, **QUICK), zero_filled) > 0.02


def test_empty_kspace_gives_zero() -> None:
    mask = points(2, 16, 16)
    kspace, maps = scan(torch.cat([texture(16, 16)] * 2), mask)
    kspace[0] = 0
    result = dlmri(kspace, mask, maps, **QUICK)
    assert not result[0].any() and result[1].abs().sum() > 0 and result.isfinite().all()
    assert not dlmri(kspace, mask, torch.zeros_like(maps), **QUICK).any()


def test_bad_arguments_are_named() -> None:
    mask = points(2, 16, 16)
    kspace, maps = scan(torch.cat([texture(16, 16)] * 2), mask)
    for lam in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lam must be"):
            dlmri(kspace, mask, maps, lam=lam)
    for patch_size in (1, 17):
        with pytest.raises(ValueError, match="patch_size must be"):
            dlmri(kspace, mask, maps, patch_size=patch_size)
    with pytest.raises(ValueError, match="num_atoms must be"):
        dlmri(kspace, mask, maps, num_atoms=0)
    for sparsity in (0, 31):
        with pytest.raises(ValueError, match="sparsity must be"):
            dlmri(kspace, mask, maps, num_atoms=30, sparsity=sparsity)
    with pytest.raises(ValueError, match="num_iterations must be"):
        dlmri(kspace, mask, maps, num_iterations=0)
    with pytest.raises(ValueError, match="mask must have shape"):
        dlmri(kspace, mask[..., :8, :], maps)
    with pytest.raises(ValueError, match="sens_maps must be of one set"):
        dlmri(kspace, mask, torch.stack([maps, maps], dim=1))
    with pytest.raises(ValueError, match="sens_maps must have the shape"):
        dlmri(kspace, mask, maps[:, :2])
    with pytest.raises(ValueError, match="sens_maps must have the shape"):
        dlmri(kspace[:1], mask, maps)
