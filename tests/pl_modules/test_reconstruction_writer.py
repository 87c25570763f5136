from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastmri
import h5py
import numpy as np
import pytest
import torch
from helpers import column_mask

from fastmri_ufloss.pl_modules import MriModule
from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter, masks_of
from fastmri_ufloss.pl_modules.reconstructor import Reconstructed
from fastmri_ufloss.pl_modules.stages import Generated, StagesTest


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


def test_each_sample_of_a_batch_has_its_mask() -> None:
    masks = column_mask(2, 9)
    batch = SimpleNamespace(mask=masks)
    assert all(torch.equal(mask, masks[0]) for mask in masks_of(SimpleNamespace(mask=masks[:1]), 2))
    assert [torch.equal(*pair) for pair in zip(masks_of(batch, 2), masks, strict=True)] == [True, True]
    assert masks_of(SimpleNamespace(), 3) == [None] * 3


class Identity(StagesTest):
    """Its image is the target of the batch."""

    title, base_title = "output", "base"
    reconstructor = SimpleNamespace(name="unet")

    def generate(self, batch: Any) -> Generated:
        image = batch.target[:, None]
        return Generated(image, Reconstructed(image, image, image, image), None)


@pytest.mark.parametrize("module", [MriModule, Identity])
def test_the_tests_of_modules_write_the_masks_of_their_batches(tmp_path: Path, module: type[MriModule]) -> None:
    mask = column_mask(2, 9, center=3)
    target = torch.rand(2, 8, 9)
    batch = SimpleNamespace(
        mask=mask, target=target, fname=["a.h5", "a.h5"], slice_num=torch.tensor([0, 1]), max_value=torch.ones(2)
    )
    tested = module()
    tested.trainer = SimpleNamespace(default_root_dir=tmp_path, is_global_zero=False, world_size=1)
    tested.print = lambda text: None  # type: ignore[method-assign]
    tested.on_test_epoch_start()
    outputs = {"fname": batch.fname, "slice": batch.slice_num, "output": target.numpy()}
    if isinstance(tested, Identity):
        outputs = tested.test_step(batch, 0)
    tested.on_test_batch_end(outputs, batch, 0)
    tested.on_test_epoch_end()
    found = {str(path.relative_to(tmp_path)): "mask" in h5py.File(path) for path in tmp_path.rglob("*.h5")}
    expected = {str(Path("reconstructions") / "a.h5"): True}
    if isinstance(tested, Identity):  # the reference was made of all samples
        stages = {"zero_filled": True, "reconstruction": True, "reference": False}
        expected |= {str(Path("stages") / name / "a.h5"): has_mask for name, has_mask in stages.items()}
    assert found == expected
    with h5py.File(tmp_path / "reconstructions" / "a.h5") as file:
        np.testing.assert_array_equal(file["mask"][()], mask[0].numpy().ravel())
