from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from report_data import SIZE, columns, make_acquired, write

from fastmri_ufloss.mri import estimate_sens_maps
from fastmri_ufloss.mri.sense import cg_sense, sens_reduce
from fastmri_ufloss.report.acquisitions import AcquiredVolume, sampling_mask


def test_fully_sampled_kspace_gives_the_coil_combined_image(tmp_path: Path) -> None:
    images = make_acquired(tmp_path, "a.h5")
    volume = AcquiredVolume(tmp_path / "kspace" / "a.h5", columns())
    assert volume.is_fully_sampled and volume.file_mask is None
    one = volume.read(1)
    assert one is not None and one.sampled.all()
    # maps of 12 columns are not exact near the border
    assert np.linalg.norm(one.image.abs().numpy() - np.abs(images[1])) < 0.05 * np.linalg.norm(images[1])
    mask = torch.from_numpy(columns()).reshape(1, 1, 1, -1, 1)
    maps = estimate_sens_maps(one.kspace[None] * mask, mask=mask)
    torch.testing.assert_close(one.sens_maps, maps[0])  # from the samples that methods have, not from all
    torch.testing.assert_close(torch.view_as_real(one.image), sens_reduce(one.kspace[None], maps)[0, 0])


@pytest.mark.parametrize("has_mask", [True, False])
def test_undersampled_kspace_tells_how_it_was_sampled(tmp_path: Path, has_mask: bool) -> None:
    make_acquired(tmp_path, "a.h5", mask=columns())
    path = tmp_path / "kspace" / "a.h5"
    if not has_mask:
        with h5py.File(path, "a") as file:
            del file["mask"]
    volume = AcquiredVolume(path, ~columns())
    np.testing.assert_array_equal(volume.mask, columns())
    assert not volume.is_fully_sampled
    one = volume.read(0)
    assert one is not None
    mask = sampling_mask(columns(), one.sampled, where="")
    image = cg_sense(one.kspace[None], mask, one.sens_maps[None])[0]
    torch.testing.assert_close(one.image, image)


def test_without_any_mask_maps_are_of_the_center(tmp_path: Path) -> None:
    make_acquired(tmp_path, "a.h5")
    volume = AcquiredVolume(tmp_path / "kspace" / "a.h5")
    one = volume.read(0)
    assert volume.mask is None and one is not None
    torch.testing.assert_close(one.sens_maps, estimate_sens_maps(one.kspace[None], 24)[0])


def test_a_single_coil(tmp_path: Path) -> None:
    images = make_acquired(tmp_path, "a.h5")
    path = tmp_path / "kspace" / "a.h5"
    with h5py.File(path, "a") as file:
        kspace = file["kspace"][:, 0]
        del file["kspace"]
        file["kspace"] = kspace
    one = AcquiredVolume(path, columns()).read(0)
    assert one is not None and one.kspace.shape == (1, SIZE, SIZE, 2)
    assert one.image.shape == images[0].shape
    assert torch.equal(one.sens_maps[..., 0], torch.ones(1, SIZE, SIZE))


def test_a_mask_never_claims_what_was_left_out() -> None:
    sampled = np.ones((4, 6), dtype=bool)
    sampled[:, 0], sampled[1] = False, False
    mask = sampling_mask(np.ones(6, dtype=bool), sampled, where="")
    assert mask.shape == (1, 1, 1, 6, 1) and mask.flatten().tolist() == [0, 1, 1, 1, 1, 1]
    points = sampling_mask(np.ones((4, 6), dtype=bool), sampled, where="")
    np.testing.assert_array_equal(points[0, 0, :, :, 0], sampled)
    with pytest.raises(ValueError, match=r"a.h5: mask must have shape \(6,\) or \(4, 6\), got \(5,\)"):
        sampling_mask(np.ones(5, dtype=bool), sampled, where="a.h5")


def test_bad_slices_and_files(tmp_path: Path) -> None:
    make_acquired(tmp_path, "a.h5")
    path = tmp_path / "kspace" / "a.h5"
    with h5py.File(path, "a") as file:
        file["kspace"][0, 0, 3, 3] = np.nan
    volume = AcquiredVolume(path, columns())
    assert volume.read(0) is None and volume.read(1) is not None
    write(tmp_path / "b.h5", np.ones(3))
    (tmp_path / "b.h5").write_text("nothing")
    with pytest.raises(ValueError, match=r"b.h5 is not an HDF5 file"):
        AcquiredVolume(tmp_path / "b.h5")


def test_a_mask_without_a_gap_says_nothing(tmp_path: Path) -> None:
    make_acquired(tmp_path, "a.h5", mask=np.ones(SIZE, dtype=bool))
    volume = AcquiredVolume(tmp_path / "kspace" / "a.h5", columns())
    assert volume.is_fully_sampled and volume.file_mask is None
    np.testing.assert_array_equal(volume.mask, columns())


def test_a_damaged_slice_is_of_a_file(tmp_path: Path) -> None:
    make_acquired(tmp_path, "a.h5")
    path = tmp_path / "kspace" / "a.h5"
    with h5py.File(path, "a") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        data = file.create_dataset("kspace", data=kspace, chunks=(1, *kspace.shape[1:]), compression="gzip")
        place = data.id.get_chunk_info(len(kspace) // 2)
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset + place.size // 2)
        raw.write(bytes(64))
    with pytest.raises(ValueError, match=r"a\.h5 is not an HDF5 file, or it is truncated or damaged"):
        AcquiredVolume(path)
