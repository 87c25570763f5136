"""The report as a user types it, without its page, on volumes of 40x40, against SciPy, statsmodels and fastMRI."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmri.evaluate
import h5py
import numpy as np
import pytest
import torch
from report_data import NAMES, columns, make_acquired, make_folders, make_volume, only, read, values, write
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fastmri_ufloss.metrics.evaluate import main as evaluate
from fastmri_ufloss.models import PatchFeatureNet, load_segmenter
from fastmri_ufloss.pl_modules import SegmentationModule

FOLDERS = ("noisy", "dim", "--reference", "reference", "--output_path", "out")
SEGMENT = ("--segmenter", "segmenter.ckpt", "--segmentations", "val")
Report = Callable[..., Any]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that finds most of the rectangles."""
    torch.manual_seed(0)
    module = SegmentationModule(num_classes=2, chans=4, num_levels=2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    images, masks = (
        np.concatenate(arrays) for arrays in zip(*(make_volume(seed) for seed in (3, 4, 5)), strict=True)
    )
    for _ in range(12):
        optimizer.zero_grad()
        logits = module(torch.from_numpy(images)[:, None])
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(masks).long()).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.ckpt"
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    return path


def test_scores_are_those_of_fastmri(report: Report, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = report("noisy", "dim", "--reference", "val", "--output_path", "out")
    assert document["references"] == ["RSS"] and document["methods"] == ["noisy", "dim"]
    for method in ("noisy", "dim"):
        pairs = [(read(tmp_path / "reference" / name), read(tmp_path / method / name)) for name in NAMES]
        psnr = [float(fastmri.evaluate.psnr(*pair)) for pair in pairs]
        assert values(document, "PSNR (RSS)")[method] == psnr
        assert values(document, "SSIM (RSS)")[method] == [fastmri.evaluate.ssim(*pair).item() for pair in pairs]
        nmse = [fastmri.evaluate.nmse(*(x.astype(np.float64) for x in pair)).item() for pair in pairs]
        assert values(document, "NMSE (RSS)")[method] == pytest.approx(nmse, rel=1e-12)
        mean = only(document["means"], metric="PSNR (RSS)", method=method)
        assert (mean["contrast"], mean["subjects"], mean["mean"]) == ("all", 3, pytest.approx(np.mean(psnr)))
        assert mean["std"] == pytest.approx(np.std(psnr, ddof=1))
        # and of fastMRI's command
        sys_argv = ["evaluate", "--target-path", "val", "--predictions-path", method, "--challenge", "multicoil"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", sys_argv)
            evaluate()
        printed = capfd.readouterr().out
        for metric in ("NMSE", "PSNR", "SSIM"):
            mean = only(document["means"], metric=f"{metric} (RSS)", method=method)
            assert f"{metric} = {mean['mean']:.4g} +/- " in printed


def test_statistics_are_those_of_scipy_and_statsmodels(report: Report) -> None:
    document = report("noisy", "dim", "same=noisy", *FOLDERS[2:], "--baseline", "dim")
    rows = document["comparisons"]
    metrics = [f"{score} (reference)" for score in ("NRMSE", "PSNR", "SSIM", "HFEN", "HaarPSI")]
    assert [metric["name"] for metric in document["metrics"] if metric["tested"]] == metrics
    assert [(row["metric"], row["first"], row["second"]) for row in rows] == [
        (metric, "dim", method) for metric in metrics for method in ("noisy", "same")
    ]
    for row in rows:
        of = values(document, row["metric"])
        differences = np.subtract(of[row["second"]], of["dim"])
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["p"] == pytest.approx(stats.wilcoxon(of[row["second"]], of["dim"]).pvalue)
        interval = stats.bootstrap(
            (differences,), np.mean, n_resamples=2000, method="BCa", random_state=np.random.default_rng(0)
        ).confidence_interval
        assert (row["95% from"], row["95% to"]) == pytest.approx(tuple(interval))
        better = np.sum(differences > 0 if row["metric"][:4] in ("PSNR", "SSIM", "Haar") else differences < 0)
        assert row["better in"] == f"{better} of 3"
    holm = multipletests([row["p"] for row in rows], method="holm")[1]
    assert [row["p (Holm)"] for row in rows] == pytest.approx(holm.tolist())
    psnr = values(document, "PSNR (reference)")["noisy"]
    mean = only(document["means"], metric="PSNR (reference)", method="noisy")
    interval = stats.bootstrap((psnr,), np.mean, n_resamples=2000, random_state=np.random.default_rng(0))
    assert (mean["95% from"], mean["95% to"]) == pytest.approx(tuple(interval.confidence_interval))
    assert "Too few subjects for Wilcoxon's test (3)" in document["notes"][-1]
    # without a baseline it is the first; equal methods have no p
    document = report("noisy", "same=noisy", *FOLDERS[2:])
    for row in document["comparisons"]:
        assert (row["first"], row["difference"], row["better in"]) == ("noisy", 0, "0 of 3")
        assert row["p"] is row["p (Holm)"] is row["effect size"] is None


def test_contrasts_are_families_of_their_own(report: Report, tmp_path: Path) -> None:
    names = tuple(f"{letter}.h5" for letter in "abcdefg")
    make_folders(tmp_path, names=names)
    for index, name in enumerate(names):
        with h5py.File(tmp_path / "reference" / name, "a") as file:
            file.attrs["acquisition"] = "CORPD_FBK" if index < 5 else "CORPDFS_FBK"
    document = report(*FOLDERS)
    assert document["contrasts"] == ["all", "CORPDFS_FBK", "CORPD_FBK"]
    for contrast, chosen in (("all", range(7)), ("CORPD_FBK", range(5)), ("CORPDFS_FBK", (5, 6))):
        rows = [row for row in document["comparisons"] if row["contrast"] == contrast]
        of = values(document, "SSIM (reference)")
        pair = [np.array(of[method])[list(chosen)] for method in ("noisy", "dim")]
        row = only(rows, metric="SSIM (reference)")
        assert row["mean of second"] == pytest.approx(pair[1].mean())
        assert row["p"] == pytest.approx(stats.wilcoxon(pair[1], pair[0]).pvalue)
        holm = multipletests([row["p"] for row in rows], method="holm")[1]
        assert [row["p (Holm)"] for row in rows] == pytest.approx(holm.tolist())
    assert any(note.startswith("CORPDFS_FBK: Too few subjects for Wilcoxon's test (2)") for note in document["notes"])
    assert {row["contrast"] for row in document["slices"]} == {"CORPD_FBK", "CORPDFS_FBK"}


def test_segmentation_scores(report: Report, tmp_path: Path, segmenter: Path) -> None:
    (tmp_path / "segmenter.ckpt").write_bytes(segmenter.read_bytes())
    document = report(*FOLDERS, *SEGMENT)
    net = load_segmenter(segmenter)

    def dice_of(folder: str) -> list[list[float]]:
        found = []
        for name in NAMES:
            masks = read(tmp_path / "val" / name, "segmentation") > 0
            labels = net(torch.from_numpy(read(tmp_path / folder / name))[:, None]).numpy() > 0
            pairs = [(a, b) for a, b in zip(labels, masks, strict=True) if b.any()]
            found.append([float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in pairs])
        return found

    on_references = np.mean(np.concatenate(dice_of("reference")))
    assert on_references > 0.3
    for method in ("noisy", "dim"):
        dice = dice_of(method)
        assert values(document, "Dice 1")[method] == pytest.approx([np.mean(volume) for volume in dice])
        assert values(document, "SIS")[method] == pytest.approx([np.mean(volume) / on_references for volume in dice])
        of_slices = [value for value in values(document, "SIS", "slices")[method] if value is not None]
        assert of_slices == pytest.approx(np.concatenate(dice) / on_references)
        # of all images, five of them, and not the mean over the volumes
        sis = only(document["means"], metric="SIS", method=method)
        assert sis["mean"] == pytest.approx(np.mean(np.concatenate(dice)) / on_references)
        assert sis["95% from"] <= sis["mean"] <= sis["95% to"]
    assert f"The segmenter's own Dice on the references: {on_references:.4f} of class 1." in document["notes"]
    # of a single class SIS alone is tested
    assert {"SIS"} == {row["metric"] for row in document["comparisons"] if "(" not in row["metric"]}
    assert sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir()) == ["a.png", "b.png", "c.png"]
    images = document.comparison.read_slice("b.h5", 1)
    np.testing.assert_array_equal(images.reference["reference"], read(tmp_path / "reference" / "b.h5")[1])
    np.testing.assert_array_equal(images.outputs["dim"], read(tmp_path / "dim" / "b.h5")[1])
    np.testing.assert_array_equal(images.segmentation, read(tmp_path / "val" / "b.h5", "segmentation")[1])
    expected = net(torch.from_numpy(read(tmp_path / "dim" / "b.h5"))[1:, None]).numpy()[0]
    np.testing.assert_array_equal(images.labels["dim"], expected)
    assert list(images.labels) == ["reference", "noisy", "dim"]


def test_a_segmenter_that_finds_nothing_costs_its_own_scores_only(
    report: Report, tmp_path: Path, segmenter: Path
) -> None:
    checkpoint = torch.load(segmenter, weights_only=True)
    name = next(name for name in reversed(checkpoint["state_dict"]) if name.endswith("bias"))
    checkpoint["state_dict"][name] = torch.tensor([100.0, -100.0])
    torch.save(checkpoint, tmp_path / "segmenter.ckpt")
    document = report(*FOLDERS, *SEGMENT)
    assert any("Dice and SIS are left out: segmenter must find class 1" in note for note in document["notes"])
    names = {metric["name"] for metric in document["metrics"]}
    assert not names & {"SIS", "Dice 1"} and "SSIM (reference)" in names


def test_the_reference_as_a_method(report: Report) -> None:
    document = report("dim", "perfect=reference", "--reference", "val", "--output_path", "out")
    assert values(document, "PSNR (RSS)")["perfect"] == [None] * 3
    assert values(document, "NRMSE (RSS)")["perfect"] == [0] * 3
    assert only(document["means"], metric="PSNR (RSS)", method="perfect")["mean"] is None
    assert "PSNR (RSS) of perfect is infinite: it equals the reference, and is not compared." in document["notes"]
    assert "PSNR (RSS)" not in {row["metric"] for row in document["comparisons"]}


def test_several_references_networks_and_kspace(report: Report, tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES):
        images = make_acquired(tmp_path, name, seed=seed)
        write(tmp_path / "noisy" / name, np.abs(images) * 0.9, mask=columns())
        write(tmp_path / "dim" / name, np.abs(images) * 0.5)
    for name, chans in (("one", 1), ("two", 2), ("mine", 1)):
        (tmp_path / name).mkdir()
        PatchFeatureNet(chans, patch_size=32).save(tmp_path / name / "feature_net.safetensors")
    nets = ("--feature_net", *(f"{name}/feature_net.safetensors" for name in ("one", "two", "mine")))
    nets = (*nets, "--trained_on", "mine/feature_net.safetensors", "--stride", 8)
    document = report(
        "noisy",
        "dim",
        "--reference",
        "kspace",
        "other=reference",
        "--kspace",
        "kspace",
        *nets,
        "--output_path",
        "out",
    )
    assert document["references"] == ["RSS", "other", "coil-combined"]
    metrics = {metric["name"]: metric for metric in document["metrics"]}
    of_net = {name: (m["reference"], m["tested"]) for name, m in metrics.items() if name.startswith("UFLoss")}
    assert of_net == {
        "UFLoss (one)": ("RSS", True),
        "UFLoss (two)": ("coil-combined", True),
        "UFLoss (trained on)": ("RSS", False),
    }
    # the main reference is tested, the others are shown
    tested = {name for name, metric in metrics.items() if metric["tested"]}
    assert "SSIM (RSS)" in tested and not tested & {"SSIM (other)", "SSIM (coil-combined)", "residual", "sharpness"}
    assert metrics["sharpness"]["larger_is_better"] is None and metrics["residual"]["larger_is_better"] is False
    noisy, dim = (np.array(values(document, "residual")[method]) for method in ("noisy", "dim"))
    assert (noisy < dim).all()
    assert any("the references' own residual is" in note for note in document["notes"])
    for row in (*document["slices"], *document["volumes"]):
        assert set(metrics) <= set(row) and all(row[name] is not None for name in metrics)
    images = document.comparison.read_slice("a.h5", 0)
    assert list(images.reference) == document["references"]
    # every cell of the tables is in the CSV files
    for table in ("slices", "volumes", "means", "comparisons"):
        with open(tmp_path / "out" / f"{table}.csv", encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        expected = [{k: "" if v is None else str(v) for k, v in row.items()} for row in document[table]]
        assert rows == expected and rows


def test_volumes_of_one_subject_are_averaged(report: Report, tmp_path: Path) -> None:
    for name, patient in zip(NAMES, ("one", "two", "one"), strict=True):
        with h5py.File(tmp_path / "reference" / name, "a") as file:
            file.attrs["patient_id"] = patient
    document = report(*FOLDERS)
    assert "3 volumes of 2 subjects" in document.stdout
    assert [row["subject"] for row in document["volumes"][::2]] == ["one", "two", "one"]
    a, b, c = values(document, "PSNR (reference)")["noisy"]
    mean = only(document["means"], metric="PSNR (reference)", method="noisy")
    assert (mean["subjects"], mean["mean"]) == (2, pytest.approx(((a + c) / 2 + b) / 2))
    for name in NAMES:
        with h5py.File(tmp_path / "reference" / name, "a") as file:
            file.attrs["patient_id"] = "anonymous"
    document = report(*FOLDERS)
    assert any("All volumes have one patient_id" in note for note in document["notes"])
    assert "3 volumes of 3 subjects" in document.stdout
