"""The images of the feature networks that ship, from packages that stand in for the real ones."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from helpers import run_recipe

from fastmri_ufloss.simulation.simulate import simulate_kspace

SCRIPT = "modl_ufloss/general_data.py"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hearts, of which one is for tests and one for validation, a phantom, and packages with heads."""
    generator = np.random.default_rng(0)
    for name in ("SC-HF-I-02", "SC-N-02", "SC-N-40"):
        np.savez(tmp_path / f"{name}.npz", images=generator.integers(0, 255, (2, 80, 76), dtype=np.uint8))
    kspace = simulate_kspace(generator.random((1, 80, 80)).astype(np.float32), num_coils=3, snr=np.inf, seed=0)
    np.save(tmp_path / "a_phantom.npy", kspace[0])
    head = nibabel.Nifti1Image(generator.random((24, 20, 16)).astype(np.float32), np.eye(4))
    files = {
        "nilearn": "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
        "pydeface": "data/mean_reg2mean.nii.gz",
        "dipy": "data/files/S0_10slices.nii.gz",
    }
    for package, name in files.items():
        path = tmp_path / "packages" / package / name
        path.parent.mkdir(parents=True)
        (tmp_path / "packages" / package / "__init__.py").touch()
        nibabel.save(head, path)
    np.save(tmp_path / "packages/dipy/data/files/t1_coronal_slice.npy", generator.random((80, 72)))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return tmp_path


def test_each_image_is_there_as_it_is_and_turned_but_for_the_held_out_subjects(sources: Path) -> None:
    options = ["--sunnybrook", ".", "--phantoms", ".", "--num_knees", 1, "--copies", 2]
    for folder in ("data", "again"):
        run_recipe(SCRIPT, "--output_path", folder, *options, cwd=sources)
    data = sources / "data"
    training, validation = (sorted((data / f"singlecoil_{split}").iterdir()) for split in ("train", "val"))
    assert [path.name for path in validation] == ["SC-N-02_0.h5"]
    assert {path.stem.rpartition("_")[0] for path in training} == {
        *("SC-HF-I-02", "a_phantom", "knee_0", "dipy_S0_10slices_2", "dipy_t1_coronal_slice_2"),
        *(f"nilearn_mni_icbm152_t1_tal_nlin_sym_09a_converted_{axis}" for axis in (0, 1, 2)),
        *(f"pydeface_mean_reg2mean_{axis}" for axis in (0, 1, 2)),
        "nibabel_example4d_2",
    }
    assert len(training) == 3 * 12
    for path in (*training, *validation):
        with h5py.File(path) as file, h5py.File(sources / "again" / path.relative_to(data)) as same:
            kspace, image = file["kspace"][()], file["reconstruction_esc"][()]
            np.testing.assert_array_equal(kspace, same["kspace"][()])
        assert np.iscomplexobj(kspace) and np.isfinite(kspace).all() and image.max() > 0
        if not path.stem.endswith("_0"):
            assert min(kspace.shape[1:]) >= 72

    stamps = {path: path.stat().st_mtime_ns for path in training}
    training[0].unlink()
    run_recipe(SCRIPT, "--output_path", "data", *options, cwd=sources)
    assert [path for path in training if path.stat().st_mtime_ns != stamps[path]] == training[:1]


def test_what_is_missing_is_named(sources: Path) -> None:
    (sources / "empty").mkdir()
    (sources / "packages" / "dipy" / "data" / "files" / "S0_10slices.nii.gz").unlink()
    for options, message in [
        (["--sunnybrook", "empty", "--phantoms", "."], "no SC-*.npz in empty: check --sunnybrook"),
        (["--sunnybrook", ".", "--phantoms", "empty"], "S0_10slices.nii.gz"),
    ]:
        error = run_recipe(SCRIPT, "--output_path", "out", "--copies", 0, *options, cwd=sources, fails=True).stderr
        assert message in error
