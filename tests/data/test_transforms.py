import subprocess
import sys
from pathlib import Path

import fastmri
import h5py
import numpy as np
import pytest
import torch
from fastmri.data.transforms import VarNetDataTransform, VarNetSample

from fastmri_ufloss.data import (
    IndexedSliceDataset,
    MetadataIndex,
    MoDLDataTransform,
    MoDLSample,
    SensMapCache,
    SensMapFiles,
    create_mask_for_mask_type,
)
from fastmri_ufloss.mri import combine_sets, estimate_sens_maps, sense_adjoint
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

MASK = create_mask_for_mask_type("random", [0.25], [3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:32j, -1:1:40j]
    images = (x**2 + y**2 < 0.6) * (1 + 0.3 * rng.random((2, 32, 40)))
    write_volume(folder / "a.h5", simulate_kspace(images, num_coils=4, seed=1), recon_size=(28, 30))
    write_volume(folder / "b.h5", simulate_kspace(images[:1], num_coils=4, seed=2))
    return folder


def dataset(folder: Path, transform: object) -> IndexedSliceDataset:
    index = MetadataIndex(folder.parent / "index.json", challenge="multicoil")
    return IndexedSliceDataset(
        folder, "multicoil", index=index, mask_center=lambda rows, cols: (rows, 10), transform=transform
    )


def test_first_fields_are_those_of_varnet(folder: Path) -> None:
    assert MoDLSample._fields[: len(VarNetSample._fields)] == VarNetSample._fields
    ours = dataset(folder, MoDLDataTransform(MASK))[0]
    theirs = dataset(folder, VarNetDataTransform(MASK))[0]
    for name, value in theirs._asdict().items():
        other = getattr(ours, name)
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(other, value, rtol=0, atol=0)
        else:
            assert np.all(np.asarray(other) == np.asarray(value)), name


def test_training_masks_depend_on_seed_epoch_file_and_slice_only(folder: Path) -> None:
    data = dataset(folder, MoDLDataTransform(MASK, use_seed=False, seed=1))
    again = dataset(folder, MoDLDataTransform(MASK, use_seed=False, seed=1))
    other_seed = dataset(folder, MoDLDataTransform(MASK, use_seed=False, seed=2))

    def mask(data: IndexedSliceDataset, epoch: int, index: int) -> list[bool]:
        return data[(epoch, index)].mask.flatten().tolist()

    base = mask(data, 0, 0)
    for _ in range(3):
        np.random.random()
        mask(data, 5, 1)  # whatever was drawn between
    assert mask(data, 0, 0) == base == mask(again, 0, 0)
    for different in (mask(data, 1, 0), mask(data, 0, 1), mask(data, 0, 2), mask(other_seed, 0, 0)):
        assert different != base


def test_seeded_masks_are_the_same_for_a_volume_and_for_all_epochs(folder: Path) -> None:
    data = dataset(folder, MoDLDataTransform(MASK))
    assert torch.equal(data[0].mask, data[1].mask) and torch.equal(data[(4, 0)].mask, data[0].mask)
    assert not torch.equal(data[0].mask, data[2].mask)


def test_reference_is_coil_combined_with_maps_of_the_acquired_center(folder: Path, tmp_path: Path) -> None:
    sample = dataset(folder, MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path)))[0]
    with h5py.File(folder / "a.h5") as volume:
        full = torch.view_as_real(torch.from_numpy(volume["kspace"][0]))
    maps = estimate_sens_maps(sample.masked_kspace[None], sample.num_low_frequencies)[0]
    torch.testing.assert_close(sample.sens_maps, maps, atol=2e-3, rtol=0)
    combined = (torch.view_as_complex(maps).conj() * torch.view_as_complex(fastmri.ifft2c(full))).sum(0)
    torch.testing.assert_close(sample.reference, combined, atol=1e-2, rtol=0)
    assert sample.kspace is None
    without = dataset(folder, MoDLDataTransform(MASK))[0]
    torch.testing.assert_close(without.kspace, full)
    assert without.sens_maps is None and without.reference is None


def test_nothing_from_lines_that_were_not_acquired_reaches_the_network(folder: Path, tmp_path: Path) -> None:
    transform = MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path))
    data = dataset(folder, transform)
    before = data[0]
    changed = folder.parent / "changed"
    changed.mkdir(exist_ok=True)
    with h5py.File(folder / "a.h5") as volume:
        kspace = volume["kspace"][()]
    kspace[..., ~before.mask.flatten().numpy()] *= -3
    write_volume(changed / "a.h5", kspace, recon_size=(28, 30))
    after = dataset(changed, transform)[0]
    for name in ("masked_kspace", "mask", "num_low_frequencies", "sens_maps", "scale"):
        a, b = getattr(before, name), getattr(after, name)
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), name
    assert not torch.equal(before.reference, after.reference)


def test_map_cache_is_used_again_whole_and_keyed_by_content(folder: Path, tmp_path: Path) -> None:
    cache = SensMapCache(tmp_path)
    data = dataset(folder, MoDLDataTransform(MASK, sens_maps=cache))
    first = data[0]
    file = cache.file(first.num_low_frequencies, folder / "a.h5", 0)
    assert np.load(file).dtype == np.float16
    marked = np.full_like(np.load(file), 0.5)
    np.save(file, marked)
    assert float(data[0].sens_maps.mean()) == 0.5  # read, not computed again
    file.write_bytes(file.read_bytes()[:100])  # damaged: computed again
    torch.testing.assert_close(data[0].sens_maps, first.sens_maps, rtol=0, atol=0)
    assert cache.file(12, folder / "a.h5", 0) != cache.file(10, folder / "a.h5", 0)
    assert cache.file(30, folder / "a.h5", 0) == cache.file(24, folder / "a.h5", 0)
    assert SensMapCache(tmp_path, calibration_size=20).file(30, folder / "a.h5", 0) != cache.file(
        30, folder / "a.h5", 0
    )


def test_what_a_killed_process_left_in_the_cache_goes(folder: Path, tmp_path: Path) -> None:
    data = dataset(folder, MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path)))
    file = SensMapCache(tmp_path).file(data[0].num_low_frequencies, folder / "a.h5", 0)
    file.unlink()
    code = f"""import os
from fastmri_ufloss.files import atomic_path
with atomic_path({str(file)!r}) as temporary:
    temporary.write_text("half")
    if {{}}:
        os.kill(os.getpid(), 9)
    print(temporary.name, flush=True)
    input()
"""
    subprocess.run([sys.executable, "-c", code.format(True)], check=False)
    writing = subprocess.Popen(
        [sys.executable, "-c", code.format(False)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writing:
        assert writing.stdout is not None
        name = writing.stdout.readline().strip()
        assert [left.name for left in file.parent.glob(".*.tmp")] == [name]  # the other went with the next write
        assert data[0].sens_maps is not None
        assert {left.name for left in file.parent.iterdir()} >= {name, file.name}  # what is being written stays
        writing.kill()
    file.unlink()
    assert data[0].sens_maps is not None
    assert not list(file.parent.glob(".*.tmp"))


def test_map_cache_of_two_sets(folder: Path, tmp_path: Path) -> None:
    cache = SensMapCache(tmp_path, num_maps=2)
    transform = MoDLDataTransform(MASK, sens_maps=cache)
    sample, again = dataset(folder, transform)[0], dataset(folder, transform)[0]
    assert torch.equal(sample.sens_maps, again.sens_maps)
    lines = sample.num_low_frequencies
    expected = estimate_sens_maps(sample.masked_kspace[None], lines, num_maps=2)
    torch.testing.assert_close(sample.sens_maps, expected[0], atol=1e-3, rtol=0)
    single = SensMapCache(tmp_path).file(lines, folder / "a.h5", 0)
    assert single != cache.file(lines, folder / "a.h5", 0)
    with h5py.File(folder / "a.h5") as volume:
        full = torch.view_as_real(torch.from_numpy(volume["kspace"][:1]))
    torch.testing.assert_close(sample.reference, combine_sets(sense_adjoint(full, sample.sens_maps[None]))[0])
    band = dataset(folder, MoDLDataTransform(MASK, sens_maps=cache, crop_rows=True))[0]
    assert torch.equal(band.sens_maps, sample.sens_maps[:, :, 2:30])


def test_map_cache_survives_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(folder, MoDLDataTransform(MASK, sens_maps=SensMapCache(tmp_path)))

    def full_disk(stream: object, array: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            data[0]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert data[0].sens_maps is not None


def test_own_maps_come_from_files(folder: Path, tmp_path: Path) -> None:
    maps = np.random.default_rng(0).standard_normal((2, 4, 32, 40)).astype(np.complex64)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sens_maps"] = maps
    data = dataset(folder, MoDLDataTransform(MASK, sens_maps=SensMapFiles(tmp_path)))
    np.testing.assert_array_equal(torch.view_as_complex(data[1].sens_maps).numpy(), maps[1])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sens_maps"] = np.stack([maps, 2 * maps, 3 * maps], axis=1)  # of three sets
    np.testing.assert_array_equal(torch.view_as_complex(data[1].sens_maps[2]).numpy(), 3 * maps[1])
    with pytest.raises(FileNotFoundError, match=r"no coil maps .*b\.h5"):
        data[2]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["sens_maps"] = maps[:, :3]
    with pytest.raises(ValueError, match=r"must be of shape \(4, 32, 40\)"):
        data[2]
    with pytest.raises(FileNotFoundError, match="no folder"):
        SensMapFiles(tmp_path / "nowhere")


def test_own_maps_need_no_center(folder: Path, tmp_path: Path) -> None:
    with h5py.File(folder / "a.h5") as volume:
        write_volume(tmp_path / "in" / "a.h5", volume["kspace"][()], mask=np.arange(40) % 2 == 0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sens_maps"] = np.ones((4, 32, 40), dtype=np.complex64)
    sample = dataset(tmp_path / "in", MoDLDataTransform(sens_maps=SensMapFiles(tmp_path)))[0]
    assert sample.num_low_frequencies < 4 and sample.sens_maps.shape == (4, 32, 40, 2)
    with pytest.raises(ValueError, match="or give maps of your own"):
        dataset(tmp_path / "in", MoDLDataTransform(sens_maps=SensMapCache(tmp_path / "cache")))[0]


def test_files_with_a_mask_keep_it_and_have_no_reference(folder: Path, tmp_path: Path) -> None:
    with h5py.File(folder / "a.h5") as volume:
        kspace = volume["kspace"][()]
    mask = np.zeros(40, dtype=bool)
    mask[::3] = mask[14:26] = True
    write_volume(tmp_path / "a.h5", kspace, mask=mask)
    sample = dataset(tmp_path, MoDLDataTransform(MASK))[0]
    assert sample.mask.flatten().tolist() == mask.tolist()
    assert sample.num_low_frequencies == 12
    assert sample.reference is None and sample.kspace is None and sample.target.ndim == 0


def test_single_coil_becomes_one_coil() -> None:
    kspace = np.ones((16, 20), dtype=np.complex64)
    attrs = {"padding_left": 0, "padding_right": 20, "recon_size": (16, 20, 1)}
    sample = MoDLDataTransform(create_mask_for_mask_type("random", [0.3], [2]))(kspace, None, None, attrs, "a.h5", 0)
    assert sample.masked_kspace.shape == (1, 16, 20, 2)


def test_bad_slices_are_named() -> None:
    attrs = {"padding_left": 0, "padding_right": 20, "recon_size": (16, 20, 1), "max": 1.0}
    kspace = np.ones((2, 16, 20), dtype=np.complex64)
    kspace[1, 3, 4] = np.inf
    with pytest.raises(ValueError, match=r"a\.h5, slice 7: k-space has NaN or infinite"):
        MoDLDataTransform(MASK)(kspace, None, None, attrs, "a.h5", 7)
    kspace[:] = 1
    no_max = {name: value for name, value in attrs.items() if name != "max"}
    with pytest.raises(ValueError, match="no attribute 'max'"):
        MoDLDataTransform(MASK)(kspace, None, np.ones((16, 20)), no_max, "a.h5", 0)
    few = create_mask_for_mask_type("random", [0.1], [4])
    with pytest.raises(ValueError, match="2 fully sampled center lines, at least 4"):
        MoDLDataTransform(few)(kspace, None, None, attrs, "a.h5", 0)
    with pytest.raises(ValueError, match="mask must have shape"):
        MoDLDataTransform()(kspace, np.ones(19), None, attrs, "a.h5", 0)


def points_mask(rows: int, cols: int, center: int) -> np.ndarray:
    mask = np.random.default_rng(0).random((rows, cols)) < 0.3
    top, left = (rows - center + 1) // 2, (cols - center + 1) // 2
    mask[top : top + center, left : left + center] = True
    return mask


def test_maps_of_a_square_center_do_not_depend_on_what_is_around_it(folder: Path, tmp_path: Path) -> None:
    with h5py.File(folder / "a.h5") as volume:
        kspace = volume["kspace"][()]
    mask = points_mask(32, 40, 12)
    write_volume(tmp_path / "a" / "a.h5", kspace, mask=mask)
    other = mask | np.eye(32, 40, dtype=bool)
    write_volume(tmp_path / "b" / "a.h5", kspace, mask=other)
    cache = SensMapCache(tmp_path / "maps")
    first, second = (dataset(tmp_path / name, MoDLDataTransform(sens_maps=cache))[0] for name in "ab")
    assert first.mask.shape == (1, 32, 40, 1) and first.num_low_frequencies == 12
    np.testing.assert_array_equal(first.mask[0, ..., 0].numpy(), mask)
    assert torch.equal(first.sens_maps, second.sens_maps)
    only = torch.zeros_like(first.masked_kspace)
    only[:, 10:22, 14:26] = first.masked_kspace[:, 10:22, 14:26]
    expected = estimate_sens_maps(only[None], 12, mask=first.mask[None])[0]
    torch.testing.assert_close(first.sens_maps, expected.half().float(), rtol=0, atol=0)
    # a square of another size has other maps, one of the largest size those of lines
    path = tmp_path / "a" / "a.h5"
    assert cache.file(12, path, 0, square_center=True) != cache.file(12, path, 0)
    assert cache.file(24, path, 0, square_center=True) == cache.file(24, path, 0)


@pytest.mark.parametrize("points", [True, False])
def test_zeros_show_the_sampling_of_a_file_without_a_mask(folder: Path, tmp_path: Path, points: bool) -> None:
    with h5py.File(folder / "a.h5") as volume:
        kspace = volume["kspace"][()]
    mask = points_mask(32, 40, 10)
    mask = mask if points else np.tile(mask[16], (32, 1)) | (np.arange(40) % 4 == 0)
    write_volume(tmp_path / "a.h5", kspace * mask)
    sample = dataset(tmp_path, MoDLDataTransform())[0]
    np.testing.assert_array_equal(np.broadcast_to(sample.mask[0, ..., 0], (32, 40)), mask)
    assert sample.mask.shape == (1, 32 if points else 1, 40, 1)
    assert sample.reference is None and sample.kspace is None
    with pytest.raises(ValueError, match=r"a\.h5 is undersampled: there are gaps of zeros"):
        dataset(tmp_path, MoDLDataTransform(MASK, use_seed=False))[0]
    tested = dataset(tmp_path, MoDLDataTransform(MASK))[0]  # a test takes it as it takes a file with a mask
    assert torch.equal(tested.mask, sample.mask) and tested.reference is None
    with h5py.File(tmp_path / "a.h5", "r+") as volume:
        volume["kspace"][0] = kspace[0]
    with pytest.raises(ValueError, match="slice 0 is sampled in another way than the others"):
        dataset(tmp_path, MoDLDataTransform())[0]


def test_mask_of_points_leaves_out_what_the_scan_has_left_out(folder: Path, tmp_path: Path) -> None:
    with h5py.File(folder / "a.h5") as volume:
        kspace = volume["kspace"][()]
    y, x = np.mgrid[-1:1:32j, -1:1:40j]
    write_volume(tmp_path / "a.h5", kspace * (x**2 + y**2 < 1))  # no corners
    mask_func = create_mask_for_mask_type("variable_density_2d", [0.25], [2])
    sample = dataset(tmp_path, MoDLDataTransform(mask_func))[0]
    assert sample.reference is None and sample.kspace is not None  # it counts as fully sampled
    drawn = dataset(folder, MoDLDataTransform(mask_func))[0].mask[0, ..., 0].numpy()
    np.testing.assert_array_equal(sample.mask[0, ..., 0].numpy(), drawn & (x**2 + y**2 < 1))
    assert (drawn & (x**2 + y**2 >= 1)).any()


def test_mask_per_volume(folder: Path) -> None:
    def masks(**options: bool) -> list[torch.Tensor]:
        data = dataset(folder, MoDLDataTransform(MASK, use_seed=False, **options))
        return [data[(epoch, index)].mask for epoch in (0, 1) for index in (0, 1)]

    first, second, later, _ = masks(mask_per_volume=True)
    assert torch.equal(first, second) and not torch.equal(first, later)
    first, second, *_ = masks()
    assert not torch.equal(first, second)


def test_bad_masks_are_named() -> None:
    for arguments, message in [
        (("spiral", [0.1], [4]), "mask_type must be one of random"),
        (("random", [0.1], [0]), "accelerations must be at least 1"),
        (("random", [0.0], [4]), "center_fractions must be above 0"),
        (("random", [0.1, 0.2], [4]), "same number of values"),
        (("equispaced_fraction", [0.2], [8]), "alone takes the samples that acceleration 8"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_mask_for_mask_type(*arguments)
