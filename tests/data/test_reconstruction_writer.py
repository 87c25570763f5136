from pathlib import Path

import fastmri
import h5py
import numpy as np
import pytest
import torch

from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter


def test_files_are_those_of_fastmri(tmp_path: Path) -> None:
    volumes = {name: np.random.default_rng(0).random((3, 8, 9), dtype=np.float32) for name in ("a.h5", "b.h5")}
    writer = ReconstructionWriter(tmp_path / "ours")
    for fname, volume in volumes.items():
        for number, image in enumerate(volume):
            assert not (tmp_path / "ours" / fname).exists()  # before it is complete
            writer.add(fname, 2 * number, image)
    writer.add("a.h5", 0, volumes["b.h5"][0])  # again, at the end: dropped
    writer.close()
    fastmri.save_reconstructions(volumes, tmp_path / "theirs")
    for fname in volumes:
        with h5py.File(tmp_path / "ours" / fname) as ours, h5py.File(tmp_path / "theirs" / fname) as theirs:
            assert list(ours) == list(theirs)
            np.testing.assert_array_equal(ours["reconstruction"][()], theirs["reconstruction"][()])
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["a.h5", "b.h5"]


def test_wrong_slices_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    writer = ReconstructionWriter(tmp_path)
    writer.add("a.h5", 1, np.ones((4, 5)))
    with pytest.raises(
        ValueError, match=r"slices of a\.h5 must have one size.*got slice 1 of \(4, 5\) after slice 1"
    ):
        writer.add("a.h5", 1, np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"got slice 2 of \(5, 5\)"):
        writer.add("a.h5", 2, np.ones((5, 5)))
    del writer  # as when a run fails
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(9,), (8, 9)])
def test_the_mask_that_all_slices_share_is_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """In each of its forms: as it is, and as samples have it, of any type."""
    sampled = np.random.default_rng(1).random(shape) < 0.5
    of_sample = torch.from_numpy(sampled).float().reshape(1, -1, 9, 1)
    writer = ReconstructionWriter(tmp_path)
    for number in range(2):
        writer.add("same.h5", number, np.ones((4, 5)), mask=(sampled, 2 * of_sample)[number])
    for number in range(3):
        writer.add("other.h5", number, np.ones((4, 5)), mask=sampled if number != 1 else ~sampled)
    for number in range(2):
        writer.add("none.h5", number, np.ones((4, 5)), mask=(sampled, None)[number])
    writer.close()
    with h5py.File(tmp_path / "same.h5") as file:
        assert file["mask"].dtype == np.uint8
        np.testing.assert_array_equal(file["mask"][()], sampled)
    for name in ("other.h5", "none.h5"):
        with h5py.File(tmp_path / name) as file:
            assert list(file) == ["reconstruction"]


def test_what_is_discarded_is_gone_and_can_be_written_again(tmp_path: Path) -> None:
    writer = ReconstructionWriter(tmp_path)
    writer.add("a.h5", 0, np.zeros((4, 5)))
    writer.close()
    writer.discard()  # nothing is open
    writer.add("b.h5", 0, np.zeros((4, 5)))
    writer.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    writer.add("b.h5", 0, np.ones((4, 5)))
    writer.close()
    with h5py.File(tmp_path / "b.h5") as file:
        np.testing.assert_array_equal(file["reconstruction"][()], np.ones((1, 4, 5)))
