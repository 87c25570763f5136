import pickle
from pathlib import Path

import fastmri.data.transforms
import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from fastmri_ufloss.data import (
    IndexedSliceDataset,
    MetadataIndex,
    MoDLDataTransform,
    UnetDataTransform,
    create_mask_for_mask_type,
)
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

MASK = create_mask_for_mask_type("random", [0.25], [3])
HostTransform = fastmri.data.transforms.UnetDataTransform


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two multi-coil and two single-coil volumes, fully sampled."""
    root = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:32j, -1:1:40j]
    images = 1e-4 * (x**2 + y**2 < 0.6) * (1 + 0.3 * rng.random((2, 32, 40)))
    for challenge, coils in (("multicoil", 4), ("singlecoil", None)):
        folder = root / challenge
        write_volume(folder / "a.h5", simulate_kspace(images, num_coils=coils, seed=1), recon_size=(28, 30))
        write_volume(folder / "b.h5", simulate_kspace(images[:1], num_coils=coils, seed=2))
    return {path.name: path for path in root.iterdir()}


def dataset(folder: Path, transform: object, challenge: str = "multicoil") -> IndexedSliceDataset:
    index = MetadataIndex(folder.parent / f"{challenge}.json", challenge=challenge)
    return IndexedSliceDataset(
        folder, challenge, index=index, mask_center=lambda rows, cols: (rows, 10), transform=transform
    )


def kspace_of(folder: Path, name: str = "a.h5") -> np.ndarray:
    with h5py.File(folder / name) as volume:
        return np.asarray(volume["kspace"])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("challenge", ["singlecoil", "multicoil"])
def test_of_full_volumes_it_is_fastmris(folders: dict[str, Path], challenge: str, masked: bool) -> None:
    mask_func = MASK if masked else None
    ours = dataset(folders[challenge], UnetDataTransform(challenge, mask_func), challenge)
    theirs = dataset(folders[challenge], HostTransform(challenge, mask_func), challenge)
    for index in range(3):
        a, b = ours[index], theirs[index]
        assert a._fields == b._fields
        for name in ("image", "target", "mean", "std"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert (a.fname, a.slice_num, a.max_value) == (b.fname, b.slice_num, np.float32(b.max_value))


@pytest.mark.parametrize("mask_per_volume", [True, False])
def test_training_masks_are_those_of_modl(folders: dict[str, Path], mask_per_volume: bool) -> None:
    settings = {"use_seed": False, "seed": 3, "mask_per_volume": mask_per_volume}
    ours = dataset(folders["multicoil"], UnetDataTransform("multicoil", MASK, **settings))
    modl = dataset(folders["multicoil"], MoDLDataTransform(MASK, **settings))
    make_images = HostTransform("multicoil")
    for epoch, index in [(0, 0), (0, 1), (4, 1), (4, 2)]:
        masked = torch.view_as_complex(modl[(epoch, index)].masked_kspace).numpy()
        attrs = {"recon_size": ours[index].target.shape}
        sample = ours[(epoch, index)]
        assert torch.equal(sample.image, make_images(masked, None, None, attrs, "", 0).image)


def test_training_masks_depend_on_seed_epoch_file_and_slice_only(folders: dict[str, Path]) -> None:
    # the same k-space in all slices: images differ by their masks alone
    folder = folders["multicoil"].parent / "same" / "multicoil"
    for name in ("a.h5", "b.h5"):
        write_volume(folder / name, kspace_of(folders["multicoil"])[[0, 0]])

    def image(seed: int, epoch: int, index: int, **options: bool) -> torch.Tensor:
        transform = UnetDataTransform("multicoil", MASK, use_seed=False, seed=seed, **options)
        data = dataset(folder, transform)
        np.random.random()
        data[(5, 1)]  # whatever was drawn before
        return data[(epoch, index)].image

    base = image(1, 0, 0)
    assert torch.equal(image(1, 0, 0), base)
    for different in (image(2, 0, 0), image(1, 1, 0), image(1, 0, 1), image(1, 0, 2)):
        assert not torch.equal(different, base)
    assert torch.equal(image(1, 0, 0, mask_per_volume=True), image(1, 0, 1, mask_per_volume=True))
    seeded = dataset(folder, UnetDataTransform("multicoil", MASK))
    assert torch.equal(seeded[(0, 0)].image, seeded[(3, 1)].image)
    assert not torch.equal(seeded[0].image, seeded[2].image)


def test_files_with_a_mask_keep_it(folders: dict[str, Path], tmp_path: Path) -> None:
    mask = np.zeros(40, dtype=bool)
    mask[::3] = mask[14:26] = True
    kspace = kspace_of(folders["multicoil"])
    write_volume(tmp_path / "mask" / "a.h5", kspace, mask=mask)
    write_volume(tmp_path / "zeros" / "a.h5", kspace * mask)  # which show how it was sampled
    expected = None
    for name in ("mask", "zeros"):
        sample = dataset(tmp_path / name, UnetDataTransform("multicoil", MASK))[0]
        host = dataset(tmp_path / name, HostTransform("multicoil"))[0]
        assert torch.equal(sample.image, host.image) and torch.equal(sample.target, host.target)
        expected = sample.image if expected is None else expected
        assert torch.equal(sample.image, expected)
    with pytest.raises(ValueError, match=r"a\.h5 is undersampled: there are gaps of zeros"):
        dataset(tmp_path / "zeros", UnetDataTransform("multicoil", MASK, use_seed=False))[0]


def test_test_data_have_no_target(folders: dict[str, Path]) -> None:
    kspace = kspace_of(folders["multicoil"])[0]
    attrs = {"padding_left": 0, "padding_right": 40, "recon_size": (28, 30, 1)}
    ours = UnetDataTransform("multicoil", MASK)(kspace, None, None, attrs, "a.h5", 1)
    theirs = HostTransform("multicoil", MASK)(kspace, None, None, attrs, "a.h5", 1)
    assert torch.equal(ours.image, theirs.image) and ours.image.shape == (28, 30)
    assert torch.equal(ours.target, theirs.target) and ours.target.tolist() == [0]
    assert ours.max_value == theirs.max_value == 0


def test_columns_out_of_the_padding_are_left_out(folders: dict[str, Path]) -> None:
    kspace = kspace_of(folders["multicoil"])[0]
    attrs = {"padding_left": 7, "padding_right": 35, "recon_size": (32, 40, 1)}
    inside = (np.arange(40) >= 7) & (np.arange(40) < 35)
    sample = UnetDataTransform("multicoil", MASK)(kspace, None, None, attrs, "a.h5", 0)
    expected = HostTransform("multicoil", MASK)(kspace * inside, None, None, attrs, "a.h5", 0)
    assert torch.equal(sample.image, expected.image)
    whole = {**attrs, "padding_left": 0, "padding_right": 40}
    other = UnetDataTransform("multicoil", MASK)(kspace, None, None, whole, "a.h5", 0)
    assert not torch.equal(sample.image, other.image)


def test_all_is_single_precision(folders: dict[str, Path]) -> None:
    kspace = kspace_of(folders["multicoil"])[0].astype(np.complex128)
    attrs = {"padding_left": 0, "padding_right": 40, "recon_size": (32, 40, 1), "max": np.float64(1e-4)}
    transform = UnetDataTransform("multicoil", MASK)
    samples = [transform(kspace, None, np.ones((32, 40)), attrs, "a.h5", number) for number in (0, 1)]
    batch = default_collate(samples)
    for name in ("image", "target", "mean", "std", "max_value"):
        assert getattr(batch, name).dtype == torch.float32 and len(getattr(batch, name)) == 2, name
    torch.testing.assert_close(batch.max_value, torch.tensor([1e-4, 1e-4]))


def test_few_center_lines_will_do(folders: dict[str, Path]) -> None:
    few = create_mask_for_mask_type("random", [0.03], [4])
    with pytest.raises(ValueError, match="fully sampled center lines"):
        dataset(folders["multicoil"], MoDLDataTransform(few))[0]
    assert dataset(folders["multicoil"], UnetDataTransform("multicoil", few))[0].image.isfinite().all()


def test_worker_processes_can_be_sent_it(folders: dict[str, Path]) -> None:
    transform = UnetDataTransform("multicoil", MASK, use_seed=False)
    other = pickle.loads(pickle.dumps(transform))
    assert torch.equal(
        dataset(folders["multicoil"], transform)[(2, 0)].image, dataset(folders["multicoil"], other)[(2, 0)].image
    )


def test_bad_input_is_named() -> None:
    attrs = {"padding_left": 0, "padding_right": 20, "recon_size": (16, 20, 1), "max": 1.0}
    kspace = np.ones((2, 16, 20), dtype=np.complex64)
    transform = UnetDataTransform("multicoil", MASK)
    with pytest.raises(ValueError, match="which_challenge must be 'singlecoil' or 'multicoil', got 'both'"):
        UnetDataTransform("both")
    with pytest.raises(
        ValueError, match=r"a\.h5: k-space of a multicoil slice must have shape \(coils, rows, cols\)"
    ):
        transform(kspace[0], None, None, attrs, "a.h5", 0)
    with pytest.raises(ValueError, match=r"singlecoil slice must have shape \(rows, cols\), got \(2, 16, 20\)"):
        UnetDataTransform("singlecoil", MASK)(kspace, None, None, attrs, "a.h5", 0)
    with pytest.raises(ValueError, match="mask must have shape"):
        transform(kspace, np.ones(19), None, attrs, "a.h5", 0)
    no_max = {name: value for name, value in attrs.items() if name != "max"}
    with pytest.raises(ValueError, match="no attribute 'max'"):
        transform(kspace, None, np.ones((16, 20)), no_max, "a.h5", 0)
    kspace[1, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"a\.h5, slice 7: k-space has NaN or infinite"):
        transform(kspace, None, None, attrs, "a.h5", 7)
