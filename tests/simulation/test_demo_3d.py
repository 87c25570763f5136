import os
import sys

import h5py
import numpy as np
import pytest
from helpers import ifftc

from fastmri_ufloss.simulation.anatomy import draw_knee_volume
from fastmri_ufloss.simulation.demo import elliptical_mask, make_demo_scans_3d
from fastmri_ufloss.simulation.mrd_file import write_mrd
from fastmri_ufloss.simulation.simulate import fft3c

ismrmrd = pytest.importorskip("ismrmrd")

SHAPE = (32, 32, 8)
SMALL = {"num_subjects": 2, "shape": SHAPE, "num_coils": 2}


def names(root):
    return sorted(path.name for path in root.iterdir())


def read(path):
    """(row, col) of the lines in their order, and their samples; all at once, which ismrmrd's reader cannot."""
    with h5py.File(path) as file:
        acquisitions = file["dataset/data"][()]
    index = acquisitions["head"]["idx"]
    places = zip(index["kspace_encode_step_1"].tolist(), index["kspace_encode_step_2"].tolist(), strict=True)
    return list(places), [line.view(np.complex64) for line in acquisitions["data"]]


def kspace_of(path, num_coils=2, shape=SHAPE):
    """K-space (coils, readout, rows, cols), and what was acquired of it."""
    kspace, mask = np.zeros((num_coils, *shape), np.complex64), np.zeros(shape[1:], dtype=bool)
    for (row, col), line in zip(*read(path), strict=True):
        kspace[:, :, row, col] = line.reshape(num_coils, -1)
        mask[row, col] = True
    return kspace, mask


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    paths = make_demo_scans_3d(folder, **SMALL)
    assert paths == [folder / f"knee3d-00{number}.h5" for number in (1, 2)]
    return folder


def test_files(root):
    assert names(root) == ["knee3d-001.h5", "knee3d-002.h5", "knee3d_demo.json"]


def test_header_tells_patient_and_sizes(root):
    with ismrmrd.Dataset(str(root / "knee3d-002.h5"), mode="r") as data:
        header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
    assert header.subjectInformation.patientID == "demo-knee3d-002"
    assert header.measurementInformation.protocolName == "CORPDFS_FBK"
    size, field = header.encoding[0].encodedSpace.matrixSize, header.encoding[0].encodedSpace.fieldOfView_mm
    assert (size.x, size.y, size.z) == SHAPE
    assert (field.x, field.y) == (160, 160) and 120 < field.z < 200


def test_images_are_knees_of_raw_intensity(tmp_path):
    """Image by image, those of a volume that was drawn; nearly all of the energy is inside of the ellipse."""
    options = {"num_subjects": 1, "shape": (32, 32, 16), "num_coils": 4, "snr": 100.0}
    (path,) = make_demo_scans_3d(tmp_path, **options)
    kspace, _ = kspace_of(path, 4, (32, 32, 16))
    image = np.sqrt((np.abs(ifftc(kspace)) ** 2).sum(axis=0))
    assert 5e-5 < image.max() < 1e-3
    seed = int(np.random.SeedSequence([0, 3, 0]).generate_state(2)[0])
    volume = draw_knee_volume((32, 32, 16), contrast="CORPDFS_FBK", seed=seed)
    assert np.corrcoef(image.ravel(), volume.ravel())[0, 1] > 0.99
    power = (np.abs(fft3c(volume)) ** 2).sum(axis=0)
    assert power[elliptical_mask((32, 16))].sum() > 0.98 * power.sum()


def test_corners_are_left_out(root):
    _, mask = kspace_of(root / "knee3d-001.h5")
    assert np.array_equal(mask, elliptical_mask(SHAPE[1:]))
    assert mask[16, 4] and not mask[0, 0] and not mask[-1, -1]
    assert elliptical_mask((320, 256)).mean() == pytest.approx(np.pi / 4, abs=0.01)


def test_order_is_the_subjects_own(root):
    orders = [read(root / f"knee3d-00{number}.h5")[0] for number in (1, 2)]
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])


def test_subjects_differ_and_do_not_depend_on_their_number(root, tmp_path):
    first, second = (kspace_of(root / f"knee3d-00{number}.h5")[0] for number in (1, 2))
    images = [np.abs(ifftc(kspace)).ravel() for kspace in (first, second)]
    assert np.corrcoef(images)[0, 1] < 0.95
    make_demo_scans_3d(tmp_path, **{**SMALL, "num_subjects": 1})
    assert np.array_equal(kspace_of(tmp_path / "knee3d-001.h5")[0], first)


def test_seed_and_options_change_the_data(root, tmp_path):
    before, _ = kspace_of(root / "knee3d-001.h5")
    for index, changes in enumerate(({"seed": 1}, {"snr": 5.0}, {"contrast": "CORPD_FBK"})):
        (path,) = make_demo_scans_3d(tmp_path / str(index), **{**SMALL, "num_subjects": 1, **changes})
        assert np.abs(kspace_of(path)[0] - before).max() > 1e-2 * np.abs(before).max(), changes


def test_complete_data_set_is_kept(root):
    before = {path: path.stat().st_mtime_ns for path in root.iterdir()}
    assert len(make_demo_scans_3d(root, **SMALL)) == 2
    assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == before


def test_interrupted_data_set_is_completed(root, tmp_path, monkeypatch):
    calls = []

    def interrupted(path, *args, **options):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(path)
        write_mrd(path, *args, **options)

    monkeypatch.setattr("fastmri_ufloss.simulation.demo.write_mrd", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_demo_scans_3d(tmp_path, **SMALL)
    assert names(tmp_path) == ["knee3d-001.h5", "knee3d_demo.json"]
    kept = calls[0].stat().st_mtime_ns
    with pytest.raises(ValueError, match="other parameters"):
        make_demo_scans_3d(tmp_path, **{**SMALL, "seed": 3})
    monkeypatch.undo()
    make_demo_scans_3d(tmp_path, **SMALL)
    assert calls[0].stat().st_mtime_ns == kept
    assert names(tmp_path) == names(root)
    last = "knee3d-002.h5"
    assert np.array_equal(kspace_of(tmp_path / last)[0], kspace_of(root / last)[0])


def test_deleted_scan_comes_back_and_leftovers_go(tmp_path):
    (path,) = make_demo_scans_3d(tmp_path, **{**SMALL, "num_subjects": 1})
    before, _ = kspace_of(path)
    path.unlink()
    old, young = (tmp_path / f".knee3d-001.h5.{name}.tmp" for name in ("old", "young"))
    for file in (old, young):
        file.touch()
    os.utime(old, (0, 0))
    make_demo_scans_3d(tmp_path, **{**SMALL, "num_subjects": 1})
    assert np.array_equal(kspace_of(path)[0], before)
    assert not old.exists() and young.exists()


def test_other_parameters_raise(root):
    for changes in ({"seed": 1}, {"num_coils": 3}, {"num_subjects": 3}):
        with pytest.raises(ValueError, match="other parameters"):
            make_demo_scans_3d(root, **{**SMALL, **changes})


def test_files_of_somebody_else_are_not_touched(tmp_path):
    (tmp_path / "mine.h5").write_text("data")
    with pytest.raises(ValueError, match="root must have no volumes"):
        make_demo_scans_3d(tmp_path, **SMALL)
    (tmp_path / "knee3d_demo.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        make_demo_scans_3d(tmp_path, **SMALL)
    assert names(tmp_path) == ["knee3d_demo.json", "mine.h5"]


def test_missing_package_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    with pytest.raises(ImportError, match="pip install"):
        make_demo_scans_3d(tmp_path / "new", **SMALL)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("num_subjects", {"num_subjects": 0}),
        ("num_subjects", {"num_subjects": 1000}),
        ("shape", {"shape": (16, 64, 32)}),
        ("shape", {"shape": (64, 64)}),
        ("num_coils", {"num_coils": 0}),
        ("snr", {"snr": 0.0}),
        ("contrast", {"contrast": "T2"}),
        ("seed", {"seed": -1}),
    ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, name, changes):
    with pytest.raises(ValueError, match=f"{name} must be"):
        make_demo_scans_3d(tmp_path, **{**SMALL, **changes})
    assert list(tmp_path.iterdir()) == []
