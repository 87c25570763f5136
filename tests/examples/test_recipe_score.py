"""The comparison of methods as a user types it, on volumes of 32x32, against numbers made by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmri.evaluate
import h5py
import numpy as np
import pytest
import torch
from helpers import Output, run_recipe
from PIL import Image
from scipy import stats

from fastmri_ufloss.losses import ufloss_per_image
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import SegmentationModule, load_segmenter

SCRIPT = "adversarial_refinement/score.py"
NAMES = ("a.h5", "b.h5", "c.h5")
FOLDERS = ("--reference", "reference", "--methods", "noisy=noisy", "dim=dim", "--output_path", "out")
SEGMENT = ("--segmenter", "segmenter.ckpt", "--segmentations", "val")

Score = Callable[..., Output]


def write(path: Path, images: np.ndarray, *, name: str = "reconstruction", **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = np.asarray(images, dtype=np.float32)
        if "segmentation" in more:
            file["segmentation"] = more.pop("segmentation")
        file.attrs.update(more)


def read(path: Path, name: str = "reconstruction") -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[name][()])


def make_volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two slices of a bright rectangle on noise, and masks; the first slice of the first volume has none."""
    masks = np.zeros((2, 32, 32), dtype=np.uint8)
    masks[:, 8 : 16 + 2 * seed, 10:20] = 1
    images = (masks + 0.3 * np.random.default_rng(seed).random(masks.shape)) * 1e-4
    if seed == 0:
        images[0] *= 0.3
        masks[0] = 0
    return images.astype(np.float32), masks


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def score(tmp_path: Path, checkpoint: Path) -> Score:
    """The script, in a folder of a reference, two methods, volumes with segmentations and a segmenter."""
    (tmp_path / "segmenter.ckpt").write_bytes(checkpoint.read_bytes())
    for seed, name in enumerate(NAMES):
        images, masks = make_volume(seed)
        noise = np.random.default_rng(seed + 10).normal(scale=4e-5 * (1 + 0.1 * seed), size=images.shape)
        write(tmp_path / "reference" / name, images)
        write(tmp_path / "noisy" / name, np.abs(images + noise))
        write(tmp_path / "dim" / name, images * (0.7 + 0.1 * seed))
        write(tmp_path / "val" / name, images, name="reconstruction_esc", segmentation=masks, patient_id="")
    return lambda *options, fails=False: run_recipe(SCRIPT, *options, cwd=tmp_path, fails=fails)


def scores_of(folder: Path) -> dict[str, Any]:
    text = (folder / "out" / "scores.json").read_text()
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def values(document: dict[str, Any], metric: str) -> dict[str, list[float]]:
    """Of each method, in the order of the volumes."""
    found: dict[str, list[float]] = {}
    for row in document["volumes"]:
        found.setdefault(row["method"], []).append(row[metric])
    return found


def only(rows: list[dict[str, Any]], **keys: str) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[key] == value for key, value in keys.items()))
    return row


def dice_of(folder: Path, method: str) -> list[list[float]]:
    """Of each volume the Dice of its slices with the class, by NumPy."""
    segmenter = load_segmenter(folder / "segmenter.ckpt")
    found = []
    for name in NAMES:
        masks = read(folder / "val" / name, "segmentation") > 0
        labels = segmenter(torch.from_numpy(read(folder / method / name))[:, None]).numpy() > 0
        pairs = [(a, b) for a, b in zip(labels, masks, strict=True) if b.any()]
        found.append([float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in pairs])
    return found


def test_numbers_are_those_made_by_hand(score: Score, tmp_path: Path) -> None:
    out = score(*FOLDERS, *SEGMENT).stdout
    document = scores_of(tmp_path)
    for method in ("noisy", "dim"):
        pairs = [(read(tmp_path / "reference" / name), read(tmp_path / method / name)) for name in NAMES]
        psnr = [float(fastmri.evaluate.psnr(*pair)) for pair in pairs]
        assert values(document, "PSNR")[method] == pytest.approx(psnr)
        ssim = [fastmri.evaluate.ssim(*pair).item() for pair in pairs]
        assert values(document, "SSIM")[method] == pytest.approx(ssim)
        nrmse = [float(np.linalg.norm(x - t) / np.linalg.norm(t)) for t, x in pairs]
        assert values(document, "NRMSE")[method] == pytest.approx(nrmse)
        mean = only(document["means"], metric="PSNR", method=method)
        assert (mean["subjects"], mean["mean"]) == (3, pytest.approx(np.mean(psnr)))
        assert mean["95% from"] < mean["mean"] < mean["95% to"]
        dice, on_references = dice_of(tmp_path, method), np.mean(np.concatenate(dice_of(tmp_path, "reference")))
        assert values(document, "Dice 1")[method] == pytest.approx([np.mean(volume) for volume in dice])
        relative = [np.mean(volume) / on_references for volume in dice]
        assert values(document, "SIS")[method] == pytest.approx(relative)
        # of all images, five of them, and not the mean over the volumes
        sis = only(document["means"], metric="SIS", method=method)
        assert sis["mean"] == pytest.approx(np.mean(np.concatenate(dice)) / on_references)
        assert sis["95% from"] <= sis["mean"] <= sis["95% to"]
    assert document["segmenter_dice"]["1"] == pytest.approx(on_references) and on_references > 0.3
    assert f"The segmenter's own Dice on the references: {on_references:.4f} of class 1" in out
    assert "3 volumes of 3 subjects" in out and "Cropped" not in out and "cropped" not in out
    assert "Too few subjects for Wilcoxon's test (3)" in out and document["notes"]
    assert [path.name for path in sorted((tmp_path / "out" / "pictures").iterdir())] == ["a.png", "b.png", "c.png"]
    with Image.open(tmp_path / "out" / "pictures" / "a.png") as picture:
        assert min(picture.size) > 300


def test_every_method_is_compared_with_the_baseline(score: Score, tmp_path: Path) -> None:
    methods = ("--methods", "noisy=noisy", "dim=dim", "same=noisy", "--output_path", "out")
    score("--reference", "reference", *methods, "--baseline", "dim")
    document = scores_of(tmp_path)
    assert document["baseline"] == "dim"
    rows = document["comparisons"]
    assert [(row["metric"], row["first"], row["second"]) for row in rows] == [
        (metric, "dim", method) for metric in ("PSNR", "SSIM", "NRMSE") for method in ("noisy", "same")
    ]
    psnr, nrmse = values(document, "PSNR"), values(document, "NRMSE")
    differences = np.subtract(psnr["noisy"], psnr["dim"])
    row = only(rows, metric="PSNR", second="noisy")
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert row["better in"] == f"{(differences > 0).sum()} of 3"
    row = only(rows, metric="NRMSE", second="noisy")
    assert row["better in"] == f"{np.sum(np.less(nrmse['noisy'], nrmse['dim']))} of 3"
    # the six tests of the table are one family; the smallest p is multiplied by their number
    smallest = min(row["p"] for row in rows)
    assert [row["p (Holm)"] for row in rows if row["p"] == smallest] == [min(1, 6 * smallest)] * sum(
        row["p"] == smallest for row in rows
    )
    # without a baseline it is the first
    score("--reference", "reference", *methods)
    same = [row for row in scores_of(tmp_path)["comparisons"] if row["second"] == "same"]
    for row in same:
        assert (row["first"], row["difference"], row["better in"]) == ("noisy", 0, "0 of 3")
        assert row["p"] is row["p (Holm)"] is row["effect size"] is None


def test_the_reference_as_a_method(score: Score, tmp_path: Path) -> None:
    methods = ("--methods", "dim=dim", "perfect=reference", "--output_path", "out")
    out = score("--reference", "val", *methods, *SEGMENT).stdout
    document = scores_of(tmp_path)
    assert values(document, "PSNR")["perfect"] == [None] * 3
    assert values(document, "NRMSE")["perfect"] == [0] * 3
    sis = only(document["means"], metric="SIS", method="perfect")
    assert (sis["mean"], sis["95% from"], sis["95% to"]) == (1, 1, 1)
    assert "PSNR of perfect is infinite" in out
    # of a single class SIS alone is tested
    assert {row["metric"] for row in document["comparisons"]} == {"SSIM", "NRMSE", "SIS"}


def test_ufloss_of_magnitudes(score: Score, tmp_path: Path) -> None:
    net = PatchFeatureNet(1, patch_size=32).eval()
    net.save(tmp_path / "net.safetensors")
    PatchFeatureNet(2, patch_size=32).save(tmp_path / "complex.safetensors")
    score(*FOLDERS, "--feature_net", "net.safetensors", "--stride", 40)
    pair = [torch.from_numpy(read(tmp_path / folder / "b.h5"))[:, None] for folder in ("noisy", "reference")]
    with torch.no_grad():
        expected = float(ufloss_per_image(net, *pair, stride=40, chunk_size=4).mean())
    assert values(scores_of(tmp_path), "UFLoss")["noisy"][1] == pytest.approx(expected, rel=1e-4)
    assert only(scores_of(tmp_path)["comparisons"], metric="UFLoss", second="dim")["better in"] == "3 of 3"
    error = score(*FOLDERS, "--feature_net", "complex.safetensors", fails=True).stderr
    assert "in_chans 2" in error
    assert "--stride is for UFLoss" in score(*FOLDERS, "--stride", 40, fails=True).stderr


def test_volumes_of_one_subject_are_averaged(score: Score, tmp_path: Path) -> None:
    for name, patient in zip(NAMES, ("one", "two", "one"), strict=True):
        with h5py.File(tmp_path / "reference" / name, "a") as file:
            file.attrs["patient_id"] = patient
    out = score(*FOLDERS).stdout
    document = scores_of(tmp_path)
    assert "3 volumes of 2 subjects" in out
    assert [row["subject"] for row in document["volumes"][::2]] == ["one", "two", "one"]
    a, b, c = values(document, "PSNR")["noisy"]
    mean = only(document["means"], metric="PSNR", method="noisy")
    assert (mean["subjects"], mean["mean"]) == (2, pytest.approx(((a + c) / 2 + b) / 2))
    assert only(document["comparisons"], metric="PSNR")["better in"].endswith("of 2")
    # one patient_id of all says nothing
    for name in NAMES:
        with h5py.File(tmp_path / "reference" / name, "a") as file:
            file.attrs["patient_id"] = "anonymous"
    out = score(*FOLDERS).stdout
    assert "All volumes have one patient_id" in out and "3 volumes of 3 subjects" in out


def test_a_single_subject_has_means_only(score: Score, tmp_path: Path) -> None:
    for folder in ("reference", "noisy", "dim"):
        for name in NAMES[1:]:
            (tmp_path / folder / name).unlink()
    out = score(*FOLDERS, *SEGMENT).stdout
    document = scores_of(tmp_path)
    assert document["comparisons"] == [] and "a single subject, so there are means" in out
    mean = only(document["means"], metric="PSNR", method="dim")
    assert mean["mean"] > 0 and mean["95% from"] is mean["95% to"] is None


def test_all_are_cropped_to_the_smallest(score: Score, tmp_path: Path) -> None:
    images = read(tmp_path / "dim" / "b.h5")
    write(tmp_path / "dim" / "b.h5", images[:, 2:-2, 3:-3])
    out = score(*FOLDERS, *SEGMENT).stdout
    sources = "reference, noisy, segmentation"
    assert f"1 volumes are cropped around their centre, such as b.h5: 32x32 ({sources}) to 28x26" in out
    rows = [row for row in scores_of(tmp_path)["volumes"] if row["volume"] == "b.h5"]
    reference = read(tmp_path / "reference" / "b.h5")[:, 2:-2, 3:-3]
    noisy = read(tmp_path / "noisy" / "b.h5")[:, 2:-2, 3:-3]
    assert rows[0]["PSNR"] == pytest.approx(float(fastmri.evaluate.psnr(reference, noisy)))
    masks = read(tmp_path / "val" / "b.h5", "segmentation")[:, 2:-2, 3:-3] > 0
    labels = load_segmenter(tmp_path / "segmenter.ckpt")(torch.from_numpy(noisy.copy())[:, None]).numpy() > 0
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(labels, masks, strict=True)]
    assert rows[0]["Dice 1"] == pytest.approx(np.mean(dice))


def test_only_common_volumes(score: Score, tmp_path: Path) -> None:
    (tmp_path / "dim" / "b.h5").unlink()
    error = score(*FOLDERS, fails=True).stderr
    assert error.startswith("error: dim lacks 1 of 3 volumes that are in other folders: b.h5; ")
    out = score(*FOLDERS, "--common").stdout
    assert "1 volumes that not all folders have are left out" in out
    assert {row["volume"] for row in scores_of(tmp_path)["volumes"]} == {"a.h5", "c.h5"}
    assert (tmp_path / "out" / "pictures" / "a.png").is_file()
    for name in ("a.h5", "c.h5"):
        (tmp_path / "noisy" / name).unlink()
    assert "must have volumes in common" in score(*FOLDERS, "--common", fails=True).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "noisy"], "--methods must be given as NAME=FOLDER, got 'noisy'"),
        (["--methods", "=noisy"], "--methods must be given as NAME=FOLDER, got '=noisy'"),
        (["--methods", "a=noisy", "a=dim"], "--methods must have different names, got 'a' twice"),
        (["--methods", "reference=noisy"], "none be called 'reference'"),
        (["--methods", "a=nowhere"], "no folder nowhere of a"),
        (["--reference", "nowhere"], "no folder nowhere of reference"),
        (["--baseline", "dimm"], "--baseline must be one of noisy, dim, got 'dimm'"),
        (["--segmenter", "segmenter.ckpt"], "--segmenter needs --segmentations"),
        (["--segmentations", "val"], "--segmentations needs --segmenter"),
        (["--segmenter", "segmenter.ckpt", "--segmentations", "dim"], "a.h5 has no data set 'segmentation': add it"),
        (["--segmenter", "dim/a.h5", "--segmentations", "val"], "a.h5 is not a checkpoint"),
    ],
)
def test_bad_flags_are_one_line(score: Score, tmp_path: Path, options: list[str], message: str) -> None:
    error = score(*FOLDERS, *options, fails=True).stderr
    line = next(line for line in error.splitlines() if line.startswith("error: "))
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("folder", "images", "masks", "message"),
    [
        (
            "noisy",
            np.full((2, 32, 32), np.nan),
            None,
            "b.h5 (noisy) must be finite, got NaN or infinite values",
        ),
        (
            "noisy",
            np.ones((3, 32, 32)),
            None,
            "b.h5 must have the same number of slices in all folders, got 2",
        ),
        (
            "noisy",
            np.ones((2, 1, 32, 32)),
            None,
            "must hold real magnitudes (slices, rows, cols), got (2, 1",
        ),
        ("reference", np.zeros((2, 32, 32)), None, "b.h5 must have a signal"),
        ("val", np.ones((2, 32, 32)), np.full((2, 32, 32), 2, np.uint8), "classes 0 .. 1, got 1, 2"),
        ("val", np.ones((2, 32, 32)), np.ones((2, 32, 32)), "must hold class numbers (slices, rows, cols)"),
        ("val", np.ones((2, 32, 32)), None, "b.h5 has no data set 'segmentation'"),
    ],
)
def test_bad_volumes_are_named(
    score: Score, tmp_path: Path, folder: str, images: np.ndarray, masks: np.ndarray | None, message: str
) -> None:
    more = {} if masks is None else {"segmentation": masks}
    write(tmp_path / folder / "b.h5", images, **more)
    error = score(*FOLDERS, *SEGMENT, fails=True).stderr
    assert message in next(line for line in error.splitlines() if line.startswith("error: "))
    assert not (tmp_path / "out" / "scores.json").exists()


def test_no_class_in_any_image(score: Score, tmp_path: Path) -> None:
    for name in NAMES:
        images = read(tmp_path / "reference" / name)
        write(tmp_path / "val" / name, images, segmentation=np.zeros(images.shape, np.uint8))
    assert "must have a class in an image, got nothing but background" in score(*FOLDERS, *SEGMENT, fails=True).stderr
    assert not (tmp_path / "out").exists()
