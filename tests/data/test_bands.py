"""Samples of some rows of a slice alone: with a mask of columns they are that part of the whole slice, exactly."""

from dataclasses import replace
from pathlib import Path

import fastmri
import h5py
import numpy as np
import pytest
import torch
from helpers import column_mask, randn_complex, smooth_maps
from torch import Tensor, nn

from fastmri_ufloss.data import (
    IndexedSliceDataset,
    MetadataIndex,
    MoDLDataTransform,
    MoDLSample,
    SensMapCache,
    SensMapFiles,
    collate,
    create_mask_for_mask_type,
)
from fastmri_ufloss.models import MoDL
from fastmri_ufloss.mri import cg_sense, cut_rows, estimate_sens_maps, sens_expand, sens_reduce
from fastmri_ufloss.mri.center import crop_center
from fastmri_ufloss.pl_modules import MoDLModule
from fastmri_ufloss.pl_modules.mri_module import with_maps
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

ROWS, COLS, KEPT = 52, 40, 32
MASK = create_mask_for_mask_type("random", [0.3], [3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "volumes"
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLS * 1j]
    images = (x**2 + y**2 < 0.7) * (1 + 0.3 * np.random.default_rng(0).random((2, ROWS, COLS)))
    for i, name in enumerate("ab"):
        write_volume(folder / f"{name}.h5", simulate_kspace(images, num_coils=4, seed=i), recon_size=(KEPT, KEPT))
    return folder


def dataset(folder: Path, transform: MoDLDataTransform) -> IndexedSliceDataset:
    index = MetadataIndex(folder.parent / "index.json", challenge="multicoil")
    return IndexedSliceDataset(
        folder, "multicoil", index=index, mask_center=lambda r, _: (r, 12), transform=transform
    )


class RowWise(nn.Module):
    """A denoiser that sees no other row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, (1, 3), padding=(0, 1), bias=False)

    def forward(self, image: Tensor) -> Tensor:
        out = torch.relu(self.layer(torch.view_as_real(image).permute(0, 3, 1, 2)))
        return image + torch.view_as_complex(out.permute(0, 2, 3, 1).contiguous())


def row_wise_modl() -> MoDL:
    torch.manual_seed(0)
    modl = MoDL(num_unrolls=2, num_cg_iterations=6, chans=2, num_pools=1)
    modl.denoisers = nn.ModuleList([RowWise()])
    return modl


@pytest.mark.parametrize("rows", [12, 13])
@pytest.mark.parametrize("band", [(0, 12), (3, 5), (4, 1)])
def test_a_band_of_kspace_is_that_of_the_cut_image(rows: int, band: tuple[int, int]) -> None:
    first, count = band
    image = torch.view_as_real(randn_complex(2, 3, rows, 9, dtype=torch.complex128))
    expected = fastmri.fft2c(image[..., first : first + count, :, :])
    torch.testing.assert_close(cut_rows(fastmri.fft2c(image), first, count), expected)


def test_cutting_is_half_of_a_unitary_map() -> None:
    """R R^H = 1, so that white noise stays white; and the gradient is the adjoint."""
    x = torch.view_as_real(randn_complex(1, 10, 6, dtype=torch.complex128)).requires_grad_()
    y = torch.view_as_real(randn_complex(1, 4, 6, seed=1, dtype=torch.complex128))
    (adjoint,) = torch.autograd.grad((cut_rows(x, 3, 4) * y).sum(), x)
    torch.testing.assert_close((cut_rows(x, 3, 4) * y).sum(), (x * adjoint).sum())
    torch.testing.assert_close(cut_rows(adjoint, 3, 4), y)


def test_a_band_has_the_encoding_of_its_rows() -> None:
    maps, mask = smooth_maps(2, 4, 14, 18), column_mask(2, 18)
    image = torch.view_as_real(randn_complex(2, 1, 14, 18))
    kspace, rows = sens_expand(image, maps) * mask, slice(5, 11)
    band, band_maps = cut_rows(kspace, 5, 6), maps[:, :, rows]
    torch.testing.assert_close(band, sens_expand(image[:, :, rows].contiguous(), band_maps) * mask)
    torch.testing.assert_close(sens_reduce(band, band_maps), sens_reduce(kspace, maps)[:, :, rows])
    torch.testing.assert_close(cg_sense(band, mask, band_maps), cg_sense(kspace, mask, maps)[:, rows])


@pytest.mark.parametrize("band", [(-1, 3), (8, 3), (0, 0), (0, 11)])
def test_a_band_outside_is_refused(band: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"band inside 10 rows, got"):
        cut_rows(torch.zeros(1, 10, 6, 2), *band)


def check_part(part: MoDLSample, whole: MoDLSample, *, tolerance: float = 1e-5) -> None:
    """All fields of a sample are those of the whole slice, cut."""
    first, count = part.first_row, part.masked_kspace.shape[1]
    rows = slice(first, first + count)
    torch.testing.assert_close(part.masked_kspace, cut_rows(whole.masked_kspace, first, count))
    assert torch.equal(part.mask, whole.mask) and part.num_low_frequencies == whole.num_low_frequencies
    assert (part.scale, part.crop_size, part.num_rows) == (whole.scale, whole.crop_size, ROWS)
    torch.testing.assert_close(part.sens_maps, whole.sens_maps[:, rows], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(part.reference, whole.reference[rows], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("source", ["cache", "files"])
def test_rows_that_are_kept(folder: Path, tmp_path: Path, source: str) -> None:
    maps = SensMapCache(tmp_path) if source == "cache" else own_maps(folder, tmp_path)
    transform = MoDLDataTransform(MASK, sens_maps=maps)
    whole, part = (dataset(folder, replace(transform, crop_rows=crop))[1] for crop in (False, True))
    assert part.masked_kspace.shape == (4, KEPT, COLS, 2) and part.first_row == (ROWS - KEPT) // 2
    check_part(part, whole)
    assert torch.equal(part.target, whole.target) and whole.first_row == 0


def own_maps(folder: Path, tmp_path: Path) -> SensMapFiles:
    for file in folder.glob("*.h5"):
        with h5py.File(file) as volume, h5py.File(tmp_path / file.name, "w") as out:
            kspace = torch.view_as_real(torch.from_numpy(volume["kspace"][()]))
            out["sens_maps"] = torch.view_as_complex(estimate_sens_maps(kspace, 12)).numpy()
    return SensMapFiles(tmp_path)


def test_bands_of_training_depend_on_seed_epoch_file_and_slice_only(folder: Path, tmp_path: Path) -> None:
    transform = MoDLDataTransform(MASK, use_seed=False, seed=1, sens_maps=SensMapCache(tmp_path), crop_rows=True)
    whole, data = (
        dataset(folder, replace(transform, crop_rows=False)),
        dataset(folder, replace(transform, train_rows=8)),
    )
    firsts = []
    for epoch in range(12):
        for index in range(len(data)):
            part = data[(epoch, index)]
            assert part.masked_kspace.shape[1] == 8 and part.target.ndim == 0
            assert (ROWS - KEPT) // 2 <= part.first_row <= (ROWS + KEPT) // 2 - 8
            firsts.append(part.first_row)
            if epoch == 0:
                check_part(part, whole[(epoch, index)])
    assert len(set(firsts)) > 12
    # no row is rare
    seen = np.concatenate([np.arange(first, first + 8) for first in firsts])
    assert np.bincount(seen)[(ROWS - KEPT) // 2 :].min() >= len(seen) / KEPT / 4
    again = dataset(folder, replace(transform, train_rows=8))
    assert firsts == [again[(epoch, index)].first_row for epoch in range(12) for index in range(len(data))]
    other = dataset(folder, replace(transform, train_rows=8, seed=2))
    assert firsts[:4] != [other[(0, index)].first_row for index in range(len(data))]
    assert dataset(folder, replace(transform, train_rows=8, use_seed=True))[0].masked_kspace.shape[1] == KEPT


def test_maps_of_a_band_that_the_device_makes(folder: Path) -> None:
    transform = MoDLDataTransform(MASK, use_seed=False)
    whole = dataset(folder, transform)
    data = dataset(folder, replace(transform, train_rows=10, crop_rows=True))
    batch = with_maps(collate([data[(3, index)] for index in range(2)]))
    assert batch.center is None and batch.kspace is None
    for index in range(2):
        rows = slice(int(batch.first_row[index]), int(batch.first_row[index]) + 10)
        expected = with_maps(collate([whole[(3, index)]]))
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(batch.sens_maps[index], expected.sens_maps[0][:, rows], **close)
        torch.testing.assert_close(batch.reference[index], expected.reference[0][rows], **close)


@pytest.mark.parametrize("train_rows", [10, None])
def test_what_the_maps_of_the_device_begin_with_is_kept(folder: Path, tmp_path: Path, train_rows: int | None) -> None:
    transform = MoDLDataTransform(MASK, use_seed=False, train_rows=train_rows)
    keeping = dataset(folder, replace(transform, coil_matrix_cache=tmp_path))

    def maps(data: IndexedSliceDataset) -> Tensor:
        return with_maps(collate([data[(3, index)] for index in range(2)])).sens_maps

    expected = maps(dataset(folder, transform))
    assert torch.equal(maps(keeping), expected)
    files = sorted(tmp_path.rglob("*.npy"))
    assert [file.name for file in files] == ["0000.npy", "0001.npy"]
    before = [file.stat().st_mtime_ns for file in files]
    assert torch.equal(maps(keeping), expected)
    assert before == [file.stat().st_mtime_ns for file in files]  # read, not made again
    np.save(files[0], np.load(files[1]))
    assert not torch.equal(maps(keeping)[0], expected[0])
    files[0].write_bytes(files[0].read_bytes()[:100])  # damaged: made again
    assert torch.equal(maps(keeping), expected)
    with pytest.raises(ValueError, match="coil_matrix_cache is for maps that the device makes"):
        replace(transform, sens_maps=SensMapCache(tmp_path), coil_matrix_cache=tmp_path)


@pytest.mark.parametrize("rows", [20, 31, 32])
@pytest.mark.parametrize("cols", [27, 40])
@pytest.mark.parametrize("lines", [5, 8, 24])
def test_maps_need_the_center_alone(rows: int, cols: int, lines: int) -> None:
    maps, mask = smooth_maps(1, 3, rows, cols), torch.ones(1, 1, 1, cols, 1)
    kspace = sens_expand(torch.view_as_real(randn_complex(1, 1, rows, cols)), maps)
    whole = estimate_sens_maps(kspace, lines, mask=mask)
    assert torch.equal(estimate_sens_maps(crop_center(kspace), lines, mask=mask, shape=(rows, cols)), whole)


def test_a_network_without_view_of_other_rows_gives_the_same(folder: Path, tmp_path: Path) -> None:
    transform = MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path))
    whole, part = (dataset(folder, replace(transform, crop_rows=crop))[0] for crop in (False, True))
    modl = row_wise_modl()

    def image(sample: MoDLSample) -> Tensor:
        batch = collate([sample])
        kspace = batch.masked_kspace / sample.scale
        return modl(kspace, batch.mask, sens_maps=batch.sens_maps, return_complex=True)

    rows = slice(part.first_row, part.first_row + KEPT)
    full = image(whole)[:, rows]
    cut = image(part)
    torch.testing.assert_close(cut, full)
    reference = part.reference / part.scale
    gradients = [
        torch.autograd.grad((x - reference).abs().square().mean(), list(modl.parameters()), allow_unused=True)
        for x in (full, cut)
    ]
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_a_module_writes_the_same_crop(folder: Path, tmp_path: Path) -> None:
    transform = MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path))
    module = MoDLModule(num_unrolls=1, num_cg_iterations=6, chans=2, num_pools=1)
    module.modl = row_wise_modl()
    images = []
    for crop in (False, True):
        batch = collate([dataset(folder, replace(transform, crop_rows=crop))[0]])
        with torch.no_grad():
            images.append(module.test_step(batch, 0)["output"])
    assert images[0].shape == (1, KEPT, KEPT)
    torch.testing.assert_close(images[0], images[1], rtol=1e-3, atol=1e-3 * float(images[0].max()))


def test_points_have_no_bands(folder: Path) -> None:
    points = create_mask_for_mask_type("poisson_2d", [], [2], center_size=12)
    transform = MoDLDataTransform(points, use_seed=False, crop_rows=True)
    assert dataset(folder, transform)[0].masked_kspace.shape[1] == ROWS
    with pytest.raises(ValueError, match=r"a.h5: train_rows is for masks of columns, and this mask is of points"):
        dataset(folder, replace(transform, train_rows=8))[0]


def test_a_band_has_no_more_rows_than_there_are(folder: Path) -> None:
    transform = MoDLDataTransform(MASK, use_seed=False, crop_rows=True, train_rows=100)
    assert dataset(folder, transform)[0].masked_kspace.shape[1] == KEPT
    assert dataset(folder, replace(transform, crop_rows=False))[0].masked_kspace.shape[1] == ROWS


def test_a_band_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="train_rows must be at least 1, got 0"):
        MoDLDataTransform(MASK, use_seed=False, train_rows=0)
