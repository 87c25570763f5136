"""Figures made of reconstructions and of reports, as a user types them: panels and box plots."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri import evaluate
from helpers import run_recipe
from matplotlib.figure import Figure

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures import drawing, panels


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature network of magnitudes."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "rss.safetensors"
    PatchFeatureNet(1, patch_size=32, num_features=8).save(file)
    return file


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two volumes (3, 40, 40) of two contrasts; the second slice of the second has the most texture."""
    folder = tmp_path_factory.mktemp("reference")
    rng = np.random.default_rng(0)
    for name, contrast, texture in (("a", "CORPD_FBK", 0.1), ("b", "CORPDFS_FBK", 0.4)):
        images = np.ones((3, 40, 40))
        images[1] += texture * rng.standard_normal((40, 40))
        images[:, 0, 0] = 3.0
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["reconstruction_rss"] = images.astype(np.float32)
            file.attrs["acquisition"] = contrast
    return folder


def method(reference: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Leaderboard files of images that are changed."""
    folder.mkdir()
    for path in reference.iterdir():
        with h5py.File(path) as source, h5py.File(folder / path.name, "w") as file:
            file["reconstruction"] = change(source["reconstruction_rss"][()]).astype(np.float32)
    return folder


PANELS = "figures/panels.py"


def test_panels_show_the_most_textured_slice_and_fastmris_numbers(reference: Path, tmp_path: Path, net: Path) -> None:
    half = method(reference, tmp_path / "half", lambda images: images / 2)
    same = method(reference, tmp_path / "same", lambda images: images)
    options = ["--reference", reference, "--methods", f"half={half}", f"same={same}", "--output", "figure.png"]
    run_recipe(PANELS, *options, "--feature_net", net, "--stride", 4, cwd=tmp_path)
    document = json.loads((tmp_path / "figure.json").read_text())
    assert (document["volume"], document["slice"], document["contrast"]) == ("b.h5", 1, "CORPDFS_FBK")
    with h5py.File(reference / "b.h5") as file:
        images = file["reconstruction_rss"][()]
    scores = document["scores"]["half"]
    assert scores["NRMSE"] == pytest.approx(0.5)
    ssim = evaluate.ssim(images[1:2], images[1:2] / 2, maxval=images.max())
    assert scores["SSIM"] == pytest.approx(float(np.squeeze(ssim)), rel=1e-5)
    pair = (torch.from_numpy(x)[None, None] for x in (images[1] / 2, images[1]))
    ufloss = ufloss_per_image(PatchFeatureNet.load(net).requires_grad_(False), *pair, stride=4)
    assert scores["UFLoss"] == pytest.approx(float(ufloss), rel=1e-4)
    assert document["scores"]["same"] == pytest.approx({"NRMSE": 0.0, "SSIM": 1.0, "UFLoss": 0.0}, abs=1e-6)

    chosen = ["--contrast", "CORPD_FBK", "--slice", 2, "--zoom", 3, 4, 10, "--error_gain", 2]
    run_recipe(PANELS, *options[:-1], "figure.pdf", *chosen, cwd=tmp_path)
    document = json.loads((tmp_path / "figure.json").read_text())
    assert (document["volume"], document["slice"]) == ("a.h5", 2)


def test_panels_of_a_volume_with_a_slice_that_is_not_finite(reference: Path, tmp_path: Path) -> None:
    def spoil(images: np.ndarray) -> np.ndarray:
        images[0, 3, 3] = np.nan
        return images / 2

    spoiled = method(reference, tmp_path / "spoiled", spoil)
    options = ["--reference", reference, "--methods", f"spoiled={spoiled}", "--output", "figure.png", "--volume", "b"]
    run_recipe(PANELS, *options, cwd=tmp_path)
    document = json.loads((tmp_path / "figure.json").read_text())
    assert document["slice"] == 1 and document["scores"]["spoiled"]["NRMSE"] == pytest.approx(0.5)
    error = run_recipe(PANELS, *options, "--slice", 0, cwd=tmp_path, fails=True).stderr
    assert "b.h5: an image of slice 0 has NaN or infinite values, take another slice" in error


BAD_PANELS = {
    "volume": (["--volume", "c"], "volume must be a file that all folders have, got 'c'"),
    "slice": (["--volume", "a", "--slice", "3"], "slice must be in 0 .. 2, the slices of a.h5, got 3"),
    "contrast": (["--contrast", "T2"], "contrast must be one of the volumes', CORPDFS_FBK, CORPD_FBK, got 'T2'"),
    "zoom": (["--zoom", "31", "0", "10"], "zoom must be row, column and side of a square in an image of (40, 40)"),
    "gain": (["--error_gain", "0"], "error_gain must be a number above 0, got 0"),
    "stride": (["--stride", "4"], "--stride is for UFLoss of the images, whose network --feature_net names"),
    "method": (["--methods", "half"], "--methods must be given as NAME=FOLDER, got 'half'"),
    "folder": (["--methods", "half=nowhere"], "half: no folder nowhere"),
}


@pytest.mark.parametrize("case", BAD_PANELS)
def test_bad_panels_are_named(reference: Path, tmp_path: Path, case: str) -> None:
    options, message = BAD_PANELS[case]
    method(reference, tmp_path / "half", lambda images: images / 2)
    common = ["--reference", reference, "--methods", "half=half", "--output", "x.png"]
    assert message in run_recipe(PANELS, *common, *options, cwd=tmp_path, fails=True).stderr
    assert not list(tmp_path.glob("x.*"))


BOXES = "figures/box_plots.py"


def write_report(path: Path) -> None:
    """A report.json of two methods, four subjects of two contrasts, and three slices a volume."""
    rng = np.random.default_rng(0)
    names = {"NRMSE (RSS)": "RSS", "NRMSE (coil-combined)": "coil-combined", "SSIM (RSS)": "RSS"}
    names |= {"UFLoss": "coil-combined", "PSNR (RSS)": "RSS"}
    same = {"larger_is_better": True, "unit": "", "explanation": "", "tested": True}
    metrics = [{"name": n, "label": n.partition(" ")[0], "reference": r, **same} for n, r in names.items()]
    volumes, slices = [], []
    for number, method in enumerate(("PICS", "MoDL")):
        for subject in range(4):
            place = {"volume": f"{subject}.h5", "subject": f"s{subject}", "contrast": "PDFS"[: 2 + 2 * (subject % 2)]}
            volumes.append({**place, "slices": 3, "method": method, **{n: number + subject / 10 for n in names}})
            for index in range(3):
                slices.append({**place, "slice": index, "method": method, **{n: rng.random() for n in names}})
    document = {
        "title": "", "methods": ["PICS", "MoDL"], "baseline": "PICS", "references": ["RSS", "coil-combined"],
        "metrics": metrics, "contrasts": ["all", "PD", "PDFS"], "volumes": volumes, "slices": slices,
    }  # fmt: skip
    path.write_text(json.dumps(document))


def test_box_plots_of_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path / "report.json")
    figures: list[Figure] = []
    monkeypatch.setattr(drawing, "write_figure", lambda path, figure, dpi: figures.append(figure))
    run_recipe(BOXES, "--report", "report.json", "--output", "figure.pdf", cwd=tmp_path)
    assert [axis.get_title().split()[0] for axis in figures[0].axes] == ["NRMSE", "SSIM", "UFLoss"]
    document = json.loads((tmp_path / "figure.json").read_text())
    boxes = {(row["contrast"], row["metric"], row["method"]): row for row in document["boxes"]}
    metrics = ("NRMSE (RSS)", "SSIM (RSS)", "UFLoss")
    assert set(boxes) == {(c, m, x) for c in ("PD", "PDFS") for m in metrics for x in ("PICS", "MoDL")}
    box = boxes["PDFS", "UFLoss", "MoDL"]  # subjects 1 and 3
    assert (box["subjects"], box["median"]) == (2, pytest.approx(1.2))
    assert (box["1st quartile"], box["3rd quartile"]) == pytest.approx((1.15, 1.25))


def test_box_plots_of_slices_and_of_chosen_metrics(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json")
    options = [
        "--reference",
        "coil-combined",
        "--metrics",
        "NRMSE",
        "PSNR (RSS)",
        "--contrasts",
        "PD",
        "--unit",
        "slice",
    ]
    run_recipe(BOXES, "--report", "report.json", *options, "--output", "figure.png", cwd=tmp_path)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "figure.json").read_text())["boxes"]
    assert [(row["contrast"], row["metric"], row["slices"]) for row in rows] == [
        ("PD", "NRMSE (coil-combined)", 6),
        ("PD", "NRMSE (coil-combined)", 6),
        ("PD", "PSNR (RSS)", 6),
        ("PD", "PSNR (RSS)", 6),
    ]
    slices = json.loads((tmp_path / "report.json").read_text())["slices"]
    values = [r["PSNR (RSS)"] for r in slices if r["contrast"] == "PD" and r["method"] == "MoDL"]
    assert rows[3]["median"] == pytest.approx(np.median(values))


BAD_BOXES = {
    "metric": (["--metrics", "LPIPS"], "the report has no metric 'LPIPS' against RSS, only NRMSE (RSS), "),
    "reference": (["--reference", "truth"], "reference must be one of RSS, coil-combined, got 'truth'"),
    "contrast": (["--contrasts", "T2"], "contrasts must be some of PD, PDFS, got 'T2'"),
    "other JSON": (
        ["--report", "other.json"],
        "other.json must be the report.json of a report, it lacks some of methods, references",
    ),
    "no JSON": (["--report", "text.json"], "text.json must be the report.json of a report, it is not JSON"),
    "no file": (["--report", "nothing.json"], "nothing.json"),
}


@pytest.mark.parametrize("case", BAD_BOXES)
def test_bad_reports_are_named(tmp_path: Path, case: str) -> None:
    options, message = BAD_BOXES[case]
    write_report(tmp_path / "report.json")
    (tmp_path / "other.json").write_text('{"means": []}')
    (tmp_path / "text.json").write_text("hello")
    given = [] if "--report" in options else ["--report", "report.json"]
    assert message in run_recipe(BOXES, *given, *options, "--output", "x.png", cwd=tmp_path, fails=True).stderr
    assert not list(tmp_path.glob("x.*"))


def test_zoom_and_gain_of_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(drawing, "write_figure", lambda path, figure, dpi: figures.append(figure))
    reference = np.random.default_rng(0).random((20, 30))
    panels.save_panels("x.png", ("truth", reference), {"half": reference / 2}, zoom=(2, 7, 5), error_gain=3)
    shown = [np.asarray(axis.images[0].get_array()) for axis in figures[0].axes if axis.images]
    for expected in (reference[2:7, 7:12], reference[2:7, 7:12] / 2, 3 * reference / 2):
        assert any(image.shape == expected.shape and np.allclose(image, expected) for image in shown)
    assert "error x3" in [text.get_text() for axis in figures[0].axes for text in axis.texts]
