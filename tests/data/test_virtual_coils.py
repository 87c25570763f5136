"""Samples of virtual coils: one matrix for a volume, and all else as if the scan had had these coils."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset
from helpers import randn_complex
from torch import Tensor
from torch.utils.data import DataLoader

from fastmri_ufloss.data import (
    IndexedSliceDataset,
    MetadataIndex,
    MoDLDataTransform,
    MoDLSample,
    SensMapCache,
    SensMapFiles,
    SensMapSource,
    UnitSensMaps,
    collate,
    create_mask_for_mask_type,
)
from fastmri_ufloss.mri import coil_compression_matrix, compress_coils, cut_rows, estimate_sens_maps, sens_reduce
from fastmri_ufloss.mri.center import crop_center
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.pl_modules.mri_module import with_maps
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

ROWS, COLS, COILS, LINES, NUM = 40, 36, 6, 12, 4
MASK = create_mask_for_mask_type("random", [LINES / COLS], [2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "volumes"
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLS * 1j]
    images = (x**2 + y**2 < 0.7) * (1 + 0.3 * np.random.default_rng(0).random((3, ROWS, COLS)))
    for i, name in enumerate("ab"):
        kspace = simulate_kspace(images[: 3 - i], num_coils=COILS, seed=i)
        write_volume(folder / f"{name}.h5", kspace, recon_size=(28, 28))
    return folder


def dataset(folder: Path, transform: MoDLDataTransform, *, index: Path | None = None) -> IndexedSliceDataset:
    file = index or folder.parent / "index.json"
    return IndexedSliceDataset(
        folder,
        "multicoil",
        index=MetadataIndex(file, challenge="multicoil"),
        mask_center=lambda rows, _: (rows, LINES),
        transform=transform,
    )


def read(path: Path) -> Tensor:
    with h5py.File(path) as volume:
        return torch.view_as_real(torch.from_numpy(volume["kspace"][()]))


def matrix_of(path: Path) -> tuple[Tensor, Tensor]:
    """That of the center of all slices, 24 rows high."""
    kspace = read(path)
    center = crop_center(kspace, 24)[..., (24 - LINES) // 2 : (24 + LINES) // 2, :]
    return coil_compression_matrix(center)


def check_same(one: MoDLSample, other: MoDLSample) -> None:
    for name, a, b in zip(one._fields, one, other, strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        else:
            assert a == b, name


def test_samples_are_those_of_the_scan_compressed(folder: Path, tmp_path: Path) -> None:
    transform = MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path))
    whole = dataset(folder, transform)
    data = dataset(folder, replace(transform, num_virtual_coils=NUM))
    for i in range(len(data)):
        scan, sample = whole[i], data[i]
        matrix, _ = matrix_of(folder / scan.fname)
        torch.testing.assert_close(sample.masked_kspace, compress_coils(scan.masked_kspace, matrix[:NUM]))
        # the file's image and scale stay; the reference is of the virtual coils
        assert (sample.scale, sample.max_value) == (scan.scale, scan.max_value)
        assert torch.equal(sample.target, scan.target) and torch.equal(sample.mask, scan.mask)
        full = compress_coils(read(folder / scan.fname)[scan.slice_num], matrix[:NUM])
        maps = estimate_sens_maps(sample.masked_kspace[None], LINES)
        torch.testing.assert_close(sample.sens_maps, maps[0], rtol=1e-3, atol=1e-3)
        reference = torch.view_as_complex(sens_reduce(full[None], sample.sens_maps[None]))[0, 0]
        torch.testing.assert_close(sample.reference, reference)
        error = (sample.reference.abs() - scan.reference.abs()).norm() / scan.reference.norm()
        assert 1e-5 < error < 0.15
    assert whole.retained_energy == {}


def test_one_matrix_for_a_volume_whatever_slice_is_asked_first(folder: Path, tmp_path: Path) -> None:
    transform = MoDLDataTransform(MASK, use_seed=False, num_virtual_coils=NUM)
    first, last = (dataset(folder, transform, index=tmp_path / f"{i}.json") for i in range(2))
    forward = [first[(1, i)] for i in range(len(first))]
    for i in reversed(range(len(last))):
        check_same(last[(1, i)], forward[i])
    matrices = {
        sample.fname.name: sample.metadata["coil_compression_matrix"].tobytes() for sample in first.raw_samples
    }
    assert len(set(matrices.values())) == 2
    # a part of the slices has the matrix of all
    some = IndexedSliceDataset(
        folder,
        "multicoil",
        index=MetadataIndex(tmp_path / "some.json", challenge="multicoil"),
        mask_center=lambda rows, _: (rows, LINES),
        transform=transform,
        raw_sample_filter=lambda sample: sample.slice_ind == 1,
    )
    check_same(some[(1, 0)], forward[1])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_a_sample(folder: Path, tmp_path: Path, num_workers: int) -> None:
    maps = SensMapCache(tmp_path / "maps")
    transform = MoDLDataTransform(MASK, use_seed=False, sens_maps=maps, train_rows=16, num_virtual_coils=NUM)
    data = dataset(folder, transform)
    loader = DataLoader(data, batch_size=1, num_workers=num_workers, collate_fn=collate)
    for i, batch in enumerate(loader):
        check_same(batch, collate([data[i]]))


def test_only_the_center_that_every_mask_has_is_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "in")
    with h5py.File(tmp_path / "in" / "a.h5", "r+") as volume:
        kspace = volume["kspace"][()]
        start = (COLS - LINES) // 2
        kspace[..., :start] *= 3
        kspace[:, :2, :, start + LINES :] = 0
        volume["kspace"][...] = kspace
    transform = MoDLDataTransform(MASK, num_virtual_coils=NUM)
    one, other = (dataset(path, transform, index=tmp_path / "i.json") for path in (folder, tmp_path / "in"))
    a, b = (data.raw_samples[0].metadata["coil_compression_matrix"] for data in (one, other))
    np.testing.assert_array_equal(a, b)


def test_matrix_is_kept_in_the_index_beside_the_scale(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, center = tmp_path / "index.json", (ROWS, LINES)
    index = MetadataIndex(file, challenge="multicoil")
    paths = sorted(folder.glob("*.h5"))
    index.build(paths, lambda _: center)  # as of a run without compression
    assert "coil_compression" not in file.read_text()
    MetadataIndex(file, challenge="multicoil").build(paths, lambda _: center, num_virtual_coils=NUM)
    again = MetadataIndex(file, challenge="multicoil")
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", lambda *args, **kwargs: pytest.fail("the file was read again"))
        again.build(paths, lambda _: center, num_virtual_coils=NUM - 1)  # the same matrix has every number
        matrix, energies = again.coil_compression(paths[0], center)
        data = dataset(folder, MoDLDataTransform(MASK, num_virtual_coils=NUM), index=file)
    for found, expected in zip((matrix, energies), matrix_of(paths[0]), strict=True):
        np.testing.assert_array_equal(found, expected.numpy())
    assert list(data.retained_energy) == ["a.h5", "b.h5"]
    assert data.retained_energy["a.h5"] == pytest.approx(float(energies[:NUM].sum()))
    index = MetadataIndex(tmp_path / "whole.json", challenge="multicoil")
    index.build(paths, lambda _: center, num_virtual_coils=COILS)
    assert "coil_compression" not in (tmp_path / "whole.json").read_text()


def test_own_maps_are_compressed_by_the_same_matrix(folder: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((3, COILS, ROWS, COLS, 2)).astype(np.float32).view(np.complex64)[..., 0]
    maps[:, :, :2] = 0
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sens_maps"] = maps
    transform = MoDLDataTransform(MASK, sens_maps=SensMapFiles(tmp_path), num_virtual_coils=NUM, crop_rows=True)
    sample = dataset(folder, transform)[1]
    given = torch.from_numpy(maps[1, :, 6:34])
    matrix, _ = matrix_of(folder / "a.h5")
    expected = torch.view_as_complex(compress_coils(torch.view_as_real(given), matrix[:NUM]))
    found = torch.view_as_complex(sample.sens_maps)
    # in every pixel the same direction, and the norm that the maps had
    product = (found.conj() * expected).sum(dim=0)
    torch.testing.assert_close(product, (found.norm(dim=0) * expected.norm(dim=0)).to(product.dtype))
    torch.testing.assert_close(found.norm(dim=0), given.norm(dim=0))
    whole = dataset(folder, replace(transform, num_virtual_coils=None, crop_rows=False))[1]
    assert not whole.sens_maps[:, :2].any()
    np.testing.assert_array_equal(torch.view_as_complex(whole.sens_maps).numpy(), maps[1])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["sens_maps"] = maps[:, :NUM]
    with pytest.raises(ValueError, match=rf"must be of shape \({COILS}, {ROWS}, {COLS}\)"):
        dataset(folder, transform)[3]


def test_own_maps_and_the_maps_of_virtual_coils_are_one(folder: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sens_maps"] = torch.view_as_complex(estimate_sens_maps(read(folder / "a.h5"), LINES)).numpy()
    sources: tuple[SensMapSource, ...] = (SensMapFiles(tmp_path), SensMapCache(tmp_path / "cache"))
    samples = [
        dataset(folder, MoDLDataTransform(MASK, sens_maps=source, num_virtual_coils=NUM))[0] for source in sources
    ]
    given, made = (torch.view_as_complex(sample.sens_maps) for sample in samples)
    inside = (given.norm(dim=0) > 0.5) & (made.norm(dim=0) > 0.5)
    product = (given.conj() * made).sum(dim=0).abs()[inside]
    assert inside.float().mean() > 0.3 and product.mean() > 0.99


def test_map_cache_depends_on_the_compression(folder: Path, tmp_path: Path) -> None:
    cache = SensMapCache(tmp_path)
    transform = MoDLDataTransform(MASK, sens_maps=cache)
    files: set[Path] = set()
    for number in (None, 3, NUM):
        data = dataset(folder, replace(transform, num_virtual_coils=number))
        first = data[0]
        new = {path for path in tmp_path.rglob("*.npy")} - files
        assert len(new) == 1 and first.sens_maps.shape[0] == (number or COILS)
        files |= new
        torch.testing.assert_close(data[0].sens_maps, first.sens_maps, rtol=0, atol=0)
    assert set(tmp_path.rglob("*.npy")) == files
    # a run without compression finds the maps that it has made before
    assert cache.file(LINES, folder / "a.h5", 0) in files
    file = cache.file(LINES, folder / "a.h5", 0, matrix=torch.eye(NUM, COILS))
    assert file != cache.file(LINES, folder / "a.h5", 0, matrix=torch.eye(COILS)[1 : NUM + 1])


@pytest.mark.parametrize("source", ["cache", "device"])
@pytest.mark.parametrize("options", [{"crop_rows": True}, {"crop_rows": True, "train_rows": 10}])
def test_bands_of_virtual_coils(folder: Path, tmp_path: Path, source: str, options: dict[str, int]) -> None:
    maps = SensMapCache(tmp_path) if source == "cache" else None
    transform = MoDLDataTransform(MASK, use_seed=False, sens_maps=maps, num_virtual_coils=NUM)
    whole, band = (dataset(folder, replace(transform, **more))[(1, 1)] for more in ({}, options))
    assert band.masked_kspace.shape == (NUM, options.get("train_rows", 28), COLS, 2)
    first, count = band.first_row, band.masked_kspace.shape[1]
    torch.testing.assert_close(band.masked_kspace, cut_rows(whole.masked_kspace, first, count))
    whole, band = (with_maps(collate([sample])) for sample in (whole, band))
    rows = slice(first, first + count)
    torch.testing.assert_close(band.sens_maps, whole.sens_maps[:, :, rows], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(band.reference, whole.reference[:, rows], rtol=1e-4, atol=1e-4)


def test_masks_of_points(folder: Path) -> None:
    mask = create_mask_for_mask_type("poisson_2d", [], [2], center_size=LINES)
    data = IndexedSliceDataset(
        folder,
        "multicoil",
        index=MetadataIndex(folder.parent / "points.json", challenge="multicoil"),
        mask_center=lambda *_: (LINES, LINES),
        transform=MoDLDataTransform(mask, num_virtual_coils=NUM),
    )
    center = read(folder / "a.h5")[..., 14 : 14 + LINES, 12 : 12 + LINES, :]
    expected = coil_compression_matrix(center)[0][:NUM].numpy()
    np.testing.assert_array_equal(data.raw_samples[0].metadata["coil_compression_matrix"], expected)
    assert with_maps(collate([data[0]])).sens_maps.shape == (1, NUM, ROWS, COLS, 2)


def test_volumes_of_different_coils_share_batches(tmp_path: Path) -> None:
    for name, coils in (("a", COILS), ("b", COILS - 1)):
        images = np.random.default_rng(0).random((1, ROWS, COLS))
        write_volume(tmp_path / "in" / f"{name}.h5", simulate_kspace(images, num_coils=coils))
    for number, kinds in ((None, 2), (NUM, 1), (COILS - 1, 1)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = dataset(tmp_path / "in", MoDLDataTransform(MASK, num_virtual_coils=number))
        assert len(set(data.batch_keys)) == kinds
    assert collate([data[0], data[1]]).masked_kspace.shape == (2, COILS - 1, ROWS, COLS, 2)


def test_energy_that_is_lost_is_said(tmp_path: Path) -> None:
    write_volume(tmp_path / "in" / "a.h5", randn_complex(1, COILS, ROWS, COLS).numpy())
    with pytest.warns(UserWarning, match=r"num_virtual_coils=4 keeps less than 95% of the energy of a\.h5 \(0\.[67]"):
        data = dataset(tmp_path / "in", MoDLDataTransform(MASK, num_virtual_coils=NUM))
    assert data.retained_energy["a.h5"] == pytest.approx(NUM / COILS, abs=0.06)


def test_fewer_coils_are_said_and_left_as_they_are(folder: Path) -> None:
    whole = dataset(folder, MoDLDataTransform(MASK))[0]
    with pytest.warns(UserWarning, match=r"fewer coils than num_virtual_coils=9, left as they are: a\.h5, b\.h5"):
        data = dataset(folder, MoDLDataTransform(MASK, num_virtual_coils=9))
    check_same(data[0], whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(dataset(folder, MoDLDataTransform(MASK, num_virtual_coils=COILS))[0], whole)


def test_a_single_coil_is_left_as_it_is(tmp_path: Path) -> None:
    write_volume(tmp_path / "in" / "a.h5", randn_complex(2, ROWS, COLS).numpy())
    index = MetadataIndex(tmp_path / "index.json", challenge="singlecoil")
    index.build([tmp_path / "in" / "a.h5"], lambda _: (ROWS, LINES), num_virtual_coils=NUM)
    transform = MoDLDataTransform(MASK, sens_maps=UnitSensMaps(), num_virtual_coils=NUM)
    with pytest.warns(UserWarning, match="fewer coils than num_virtual_coils=4"):
        data = IndexedSliceDataset(tmp_path / "in", "singlecoil", index=index, transform=transform)
    assert data[0].masked_kspace.shape == (1, ROWS, COLS, 2)


def test_bad_input_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="num_virtual_coils must be at least 1, got 0"):
        MoDLDataTransform(MASK, num_virtual_coils=0)
    data = SliceDataset(folder, "multicoil", transform=MoDLDataTransform(MASK, num_virtual_coils=NUM))
    with pytest.raises(ValueError, match=r"a\.h5: num_virtual_coils needs a matrix, which IndexedSliceDataset gives"):
        data[0]


def test_data_module_builds_the_matrix_and_tells_the_number(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "multicoil_train")
    transforms = [MoDLDataTransform(MASK, num_virtual_coils=NUM)] * 3
    module = MriDataModule(tmp_path, "multicoil", *transforms, cache_dir=tmp_path / "cache", mask_func=MASK)
    module.build_index("train")
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", lambda *args, **kwargs: pytest.fail("the file was read again"))
        data = module.dataset("train", whole=True)
    assert data[0].masked_kspace.shape[0] == NUM
    assert module.state_dict() == {"num_virtual_coils": NUM}
