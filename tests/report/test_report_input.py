"""What the report says of input that is not as it should be."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmri.evaluate
import h5py
import numpy as np
import pytest
from report_data import NAMES, SIZE, columns, make_acquired, only, read, values, write

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report import __main__ as command

FOLDERS = ("noisy", "dim", "--reference", "reference", "--output_path", "out")
Report = Callable[..., Any]


def test_undersampled_kspace_alone_is_no_reference(report: Report, tmp_path: Path) -> None:
    for name in NAMES:
        make_acquired(tmp_path, name, mask=columns())
    error = report("noisy", "dim", "--kspace", "kspace", "--output_path", "out", status=1).stderr
    assert "is undersampled, so that it gives no reference: name a folder" in error
    document = report(*FOLDERS, "--kspace", "kspace")
    assert document["references"] == ["reference"] and values(document, "residual")["dim"][0] > 0


def test_slices_and_volumes_that_are_bad_are_excluded_and_counted(report: Report, tmp_path: Path) -> None:
    images = read(tmp_path / "dim" / "b.h5")
    images[1, 0, 0] = np.nan
    write(tmp_path / "dim" / "b.h5", images)
    write(tmp_path / "reference" / "c.h5", np.zeros_like(images))
    document = report(*FOLDERS)
    assert [(row["volume"], row["slice"], row["source"]) for row in document["excluded"]] == [
        ("b.h5", 1, "dim"), ("c.h5", None, "reference")
    ]  # fmt: skip
    note = "1 slices of 1 volumes have NaN or infinite values (of dim) and are excluded for all methods: b.h5."
    assert note in document["notes"] and note in document.stdout
    assert "1 of 3 volumes are excluded as a whole: c.h5." in document["notes"]
    assert [(row["volume"], row["slice"]) for row in document["slices"][::2]] == [
        ("a.h5", 0),
        ("a.h5", 1),
        ("b.h5", 0),
    ]
    for name in NAMES[:2]:
        write(tmp_path / "dim" / name, np.full_like(images, np.nan))
    assert "volumes must have a slice to compare, got none" in report(*FOLDERS, status=1).stderr


def test_constant_images_are_listed(report: Report, tmp_path: Path) -> None:
    images = read(tmp_path / "reference" / "a.h5")
    images[0] = 1e-5
    write(tmp_path / "reference" / "a.h5", images)
    write(tmp_path / "dim" / "b.h5", np.zeros_like(images))
    document = report(*FOLDERS)
    (row,) = document["excluded"]
    assert (row["volume"], row["slice"], row["source"]) == ("a.h5", 0, "reference")
    assert "one value everywhere" in row["why"]
    assert any(note.startswith("2 images of dim have one value everywhere, they count") for note in document["notes"])
    assert values(document, "SSIM (reference)", "slices")["noisy"][0] is None


def test_a_single_subject_has_means_only(report: Report, tmp_path: Path) -> None:
    for folder in ("reference", "noisy", "dim"):
        for name in NAMES[1:]:
            (tmp_path / folder / name).unlink()
    document = report(*FOLDERS)
    assert document["comparisons"] == []
    assert "SSIM (reference): a single subject, so there are means, but no interval and no test." in document["notes"]
    mean = only(document["means"], metric="SSIM (reference)", method="dim")
    assert mean["mean"] > 0 and mean["std"] is mean["95% from"] is mean["95% to"] is None


def test_other_sizes_are_cropped_and_said(report: Report, tmp_path: Path) -> None:
    images = read(tmp_path / "dim" / "b.h5")
    write(tmp_path / "dim" / "b.h5", images[:, 2:-2, 3:-3])
    document = report(*FOLDERS)
    note = f"1 volumes are cropped around their center, such as b.h5: {SIZE}x{SIZE} (reference, noisy) to 36x34."
    assert note in document["notes"] and document.stdout.count(note) == 1
    pair = [read(tmp_path / folder / "b.h5")[:, 2:-2, 3:-3] for folder in ("reference", "noisy")]
    assert values(document, "PSNR (reference)")["noisy"][1] == float(fastmri.evaluate.psnr(*pair))


def test_only_common_volumes(report: Report, tmp_path: Path) -> None:
    (tmp_path / "dim" / "b.h5").unlink()
    os.truncate(tmp_path / "noisy" / "c.h5", 1000)
    error = report(*FOLDERS, status=1).stderr
    assert "dim lacks b.h5, " in error and "Traceback" not in error
    document = report(*FOLDERS, "--common")
    assert {row["volume"] for row in document["volumes"]} == {"a.h5"}
    assert [(row["volume"], row["slice"], row["source"]) for row in document["excluded"]] == [
        ("b.h5", None, "dim"), ("c.h5", None, "noisy")
    ]  # fmt: skip
    assert "2 volumes that not all folders have, or that cannot be used, are left out: b.h5, c.h5." in document.stdout


def test_a_volume_that_fails_while_it_is_scored_is_named(report: Report, tmp_path: Path) -> None:
    for name in NAMES:
        make_acquired(tmp_path, name)
        write(tmp_path / "dim" / name, read(tmp_path / "dim" / name), mask=columns())
    write(tmp_path / "dim" / "b.h5", read(tmp_path / "dim" / "b.h5"), mask=np.ones(7))
    error = report(*FOLDERS, "--kspace", "kspace", status=1).stderr
    assert "1 volumes could not be scored:" in error and "b.h5, slice 0: mask must have shape (40,) or" in error
    document = report(*FOLDERS, "--kspace", "kspace", "--common")
    assert {row["volume"] for row in document["volumes"]} == {"a.h5", "c.h5"}
    assert document["excluded"][0]["volume"] == "b.h5" and "2 of 3 volumes were scored before" in document.stdout
    assert "1 of 3 volumes could not be scored and are left out." in document["notes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["other=noisy", "other=dim"], "RESULTS must have different names, got 'other' of noisy and dim: name them"),
        (["=noisy"], "RESULTS must be given as NAME=PATH or PATH, got '=noisy'"),
        (["reference"], "masks, got reference: name the folder with NAME=FOLDER"),
        (["a=nowhere"], "no folder nowhere of RESULTS 'a=nowhere'"),
        (["empty"], "no HDF5 volumes (*.h5) in empty, nor in its folders"),
        (["--reference", "nowhere"], "no folder nowhere of --reference 'nowhere'"),
        (["--reference"], None),
        (["--reference", "val", "dim", "RSS=noisy"], "--reference must have different names, got 'RSS' of val and"),
        (["--baseline", "dimm"], "--baseline must be one of noisy, dim; got 'dimm'"),
        (["--focus", "SSI"], "--focus must be one of SSIM (reference), NMSE (reference)"),
        (["--segmenter", "segmenter.ckpt"], "--segmenter needs --segmentations"),
        (["--segmentations", "val"], "--segmentations needs --segmenter"),
        (["--masks", "val"], "--masks needs --kspace"),
        (["--segmenter", "dim/a.h5", "--segmentations", "val"], "a.h5 must be a file of torch.save"),
        (["--stride", "4"], "--stride is for UFLoss, whose network --feature_net names"),
        (["--feature_net", "complex.safetensors"], "in_chans 2, of complex images, and magnitudes have no phase"),
        (["--feature_net", "nowhere.safetensors"], "no feature network at nowhere.safetensors"),
        (["--num_workers", "0"], "num_workers must be at least 1, got 0"),
    ],
)
def test_bad_flags_are_one_line(report: Report, tmp_path: Path, options: list[str], message: str | None) -> None:
    (tmp_path / "empty").mkdir()
    PatchFeatureNet(2, patch_size=32).save(tmp_path / "complex.safetensors")
    if message is None:
        with pytest.raises(SystemExit):  # argparse
            command.main(["noisy", *options])
        return
    given = options if not options[0].startswith("--") else ["noisy", "dim", *options]
    more = [] if "--reference" in options else ["--reference", "reference"]
    error = report(*given, *more, "--output_path", "out", status=1).stderr
    line = next(line for line in error.splitlines() if line.startswith("error: "))
    assert message in line
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_missing_reference_has_a_way_out(report: Report) -> None:
    error = report("noisy", "dim", "--output_path", "out", status=1).stderr
    assert "there is no reference: name a folder of fully sampled images with --reference" in error


def test_folders_of_folders_and_runs(report: Report, tmp_path: Path) -> None:
    (tmp_path / "classical").mkdir()
    for method in ("noisy", "dim"):
        (tmp_path / method).rename(tmp_path / "classical" / method)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "reconstructions").mkdir()
    for name in NAMES:
        write(tmp_path / "run" / "reconstructions" / name, read(tmp_path / "reference" / name) * 0.95)
    document = report("classical", "run", "CS=classical", "--reference", "reference", "--output_path", "out")
    assert document["methods"] == ["dim", "noisy", "run", "CS/dim", "CS/noisy"]


def test_methods_of_different_samples_are_pointed_out(report: Report, tmp_path: Path) -> None:
    for method, every in (("noisy", 3), ("dim", 4)):
        write(tmp_path / method / "b.h5", read(tmp_path / method / "b.h5"), mask=columns(every=every))
    document = report(*FOLDERS)
    note = "Methods were reconstructed from different samples: the masks of 1 volumes differ, such as b.h5 (dim)."
    assert any(text.startswith(note) for text in document["notes"])


def test_strays_are_warned_of(report: Report, tmp_path: Path) -> None:
    (tmp_path / "noisy" / "notes.txt").write_text("")
    with pytest.warns(UserWarning, match=r"skipped 1 that are no HDF5 volumes: notes.txt"):
        assert len(report(*FOLDERS)["volumes"]) == 6


def test_a_method_that_is_called_like_a_reference(report: Report) -> None:
    error = report("coil-combined=noisy", "dim", "--reference", "reference", "--output_path", "out", status=1).stderr
    assert "'coil-combined' is the name of a reference: call the method otherwise" in error


def test_constant_slices_have_no_sharpness(report: Report, tmp_path: Path) -> None:
    images = read(tmp_path / "dim" / "b.h5")
    images[0] = 0
    write(tmp_path / "dim" / "b.h5", images)
    document = report(*FOLDERS)
    of_slices, of_volumes = (values(document, "sharpness", kind)["dim"] for kind in ("slices", "volumes"))
    assert of_slices[2] is None and of_volumes[1] == of_slices[3] > 0.1


def test_a_contrast_that_is_called_all(report: Report, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        write(
            tmp_path / "reference" / name, read(tmp_path / "reference" / name), acquisition=("all", "PD")[number % 2]
        )
    document = report(*FOLDERS)
    assert document["contrasts"] == ["all", "PD", "all (of the file)"]
    assert only(document["means"], contrast="all", metric="SSIM (reference)", method="dim")["subjects"] == 3


def test_why_there_is_no_coil_combined_reference(report: Report, tmp_path: Path) -> None:
    for name in NAMES:
        make_acquired(tmp_path, name, mask=columns() if name == "b.h5" else None)
    document = report(*FOLDERS, "--kspace", "kspace")
    assert document["references"] == ["reference"]
    note = "There is no reference coil-combined, since kspace/b.h5 is undersampled."
    assert note in document["notes"] and note in document.stdout


def test_kspace_and_references_that_cannot_be_read_are_left_out(report: Report, tmp_path: Path) -> None:
    for name in NAMES:
        make_acquired(tmp_path, name)
    (tmp_path / "val" / "a.h5").write_bytes(b"no HDF5")  # the first, which names the reference
    with h5py.File(tmp_path / "kspace" / "b.h5", "a") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        data = file.create_dataset("kspace", data=kspace, chunks=(1, *kspace.shape[1:]), compression="gzip")
        place = data.id.get_chunk_info(len(kspace) // 2)
    with open(tmp_path / "kspace" / "b.h5", "r+b") as raw:
        raw.seek(place.byte_offset + place.size // 2)
        raw.write(bytes(64))
    line = ("noisy", "dim", "--reference", "val", "--kspace", "kspace", "--output_path", "out")
    assert "a.h5 is not an HDF5 file" in report(*line, status=1).stderr
    document = report(*line, "--common")
    assert document["references"] == ["RSS", "coil-combined"]
    assert {row["volume"] for row in document["volumes"]} == {"c.h5"}
    assert {row["volume"] for row in document["excluded"]} == {"a.h5", "b.h5"}


def test_a_copy_of_the_network_that_was_trained_on(report: Report, tmp_path: Path) -> None:
    PatchFeatureNet(1, patch_size=32, num_features=8).save(tmp_path / "net.safetensors")
    shutil.copy(tmp_path / "net.safetensors", tmp_path / "copy.safetensors")
    options = ("--feature_net", "copy.safetensors", "--trained_on", "net.safetensors", "--stride", 8)
    document = report(*FOLDERS, *options)
    (metric,) = (metric for metric in document["metrics"] if "UFLoss" in metric["name"])
    assert not metric["tested"]
