from pathlib import Path

import fastmri
import h5py
import numpy as np
import pytest

from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter


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
