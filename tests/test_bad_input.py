"""Forged files at every door: the errors are those of the contract, whatever is wrong."""

import os
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import ROOT, simulate_volume

from fastmri_ufloss.data.volume_files import SMALL, open_hdf5

for package in ("ismrmrd", "nibabel", "pydicom", "twixtools", "PIL", "tensorboard"):
    pytest.importorskip(package)
bad_input = runpy.run_path(str(ROOT / "benchmarks" / "bad_input.py"))


@pytest.mark.parametrize("door", bad_input["DOORS"])
def test_forged_files_are_named_or_read(tmp_path: Path, door: str) -> None:
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome, text = bad_input["attempt"](door, folder, f"{door} {number}")
        assert outcome in ("clear", "read"), f"case {number}: {text}"


@pytest.mark.parametrize("door", bad_input["DOORS"])
def test_good_files_are_read(tmp_path: Path, door: str) -> None:
    make, read = bad_input["DOORS"][door]
    make(tmp_path)
    read(tmp_path)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    simulate_volume(tmp_path / "a.h5", images, num_coils=2)
    return tmp_path / "a.h5"


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught, open_hdf5(path):
        pass
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_links_and_values_of_other_files_are_refused(volume: Path) -> None:
    other = volume.with_name("b.h5")
    os.link(volume, other)
    with h5py.File(volume, "r+") as file:
        del file["kspace"]
    for link in (h5py.SoftLink("/mask"), h5py.ExternalLink("b.h5", "/kspace")):
        with h5py.File(volume, "r+") as file:
            file["kspace"] = link
        refused(volume, f"'kspace' must be in the file itself, got a link to .*{link.path}")
        with h5py.File(volume, "r+") as file:
            del file["kspace"]
    with h5py.File(volume, "r+") as file:
        file.create_dataset("kspace", (3, 4, 4), np.complex64, external=[(str(other), 0, 3 * 4 * 4 * 8)])
    refused(volume, "'kspace' must have its values in the file itself")
    with h5py.File(volume, "r+") as file:
        del file["kspace"]
        layout = h5py.VirtualLayout((3, 4, 4), np.complex64)
        layout[:] = h5py.VirtualSource(str(other), "kspace", (3, 4, 4))
        file.create_virtual_dataset("kspace", layout)
    refused(volume, "'kspace' must have its values in the file itself")


def test_sizes_must_be_those_that_a_file_can_hold(volume: Path) -> None:
    for shape, options, message in (
        ((10**9, 2, 640, 368), {"chunks": (1, 2, 640, 368)}, "must declare at most 268435456 bytes for the 0"),
        ((10**9, 2, 640, 368), {}, r"must have \d{16} bytes for its shape"),
        ((10**5, 1, 1, 1), {"chunks": True}, "must have at most 16384 slices"),
        ((4, 2, 16, 16), {"chunks": True}, "one number of slices, got {'kspace': 4, 'reconstruction_rss': 3}"),
    ):
        with h5py.File(volume, "r+") as file:
            del file["kspace"]
            file.create_dataset("kspace", shape, np.complex64, **options)
            if shape[0] == 10**5:
                del file["reconstruction_rss"]
        refused(volume, message)
        if shape[0] == 10**5:
            with h5py.File(volume, "r+") as file:
                file["reconstruction_rss"] = np.ones((3, 16, 16), np.float32)
    # compression is no forgery: a thousand bytes in one, of more than any file may declare
    with h5py.File(volume, "w") as file:
        options = {"chunks": (1, 2048, 2048), "compression": "gzip"}
        labels = file.create_dataset("segmentation", (70, 2048, 2048), np.uint8, **options)
        for number in range(len(labels)):
            labels[number] = 0
        assert labels.size > SMALL and labels.size > 900 * labels.id.get_storage_size()
    with open_hdf5(volume, "segmentation") as file:
        assert not file["segmentation"][69].any()


def test_kinds_are_checked(volume: Path) -> None:
    for name, value, message in (
        ("max", "bright", "a number as its attribute 'max', got 'bright'"),
        ("acquisition", np.ones(3), "a text as its attribute 'acquisition'"),
        ("patient_id", h5py.Empty("f4"), "a text as its attribute 'patient_id'"),
    ):
        with h5py.File(volume, "r+") as file:
            before, file.attrs[name] = file.attrs[name], value
        refused(volume, message)
        with h5py.File(volume, "r+") as file:
            file.attrs[name] = before
    with h5py.File(volume, "r+") as file:
        file["mask"] = np.array([b"yes", b"no"])
    refused(volume, "must hold numbers for columns or points in 'mask'")
    with h5py.File(volume, "r+") as file:
        del file["mask"]
        file.create_group("mask")
    refused(volume, "'mask' must be a data set .* got a group")
