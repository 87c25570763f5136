from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_documents import METHODS, make_document

from fastmri_ufloss.metrics.volumes import SPECTRUM
from fastmri_ufloss.report.figures.score_plots import (
    choose_scores,
    perception_distortion_metrics,
    save_box_plots,
    save_perception_distortion,
    save_spectra,
)


def test_a_plot_for_each_metric_a_group_for_each_contrast_a_dot_for_each_subject(figures: list[Figure]) -> None:
    document = make_document(missing=False)
    save_box_plots("unused.png", document)
    axes = [axis for axis in figures[0].axes if axis.axison]
    titles = [axis.get_title() for axis in axes]
    assert titles == ["SSIM ↑", "NRMSE ↓", "PSNR (dB) ↑", "UFLoss ↓", "sharpness"]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["PD", "PDFS"]
    dots = [line.get_ydata() for line in axes[1].lines if line.get_marker() == "."]
    medians = [line.get_ydata()[0] for line in axes[1].lines if line.get_color() == "black"]
    groups = [(contrast, method) for contrast in ("PD", "PDFS") for method in METHODS]
    for place, found, median in zip(groups, dots, medians, strict=True):
        rows = [r for r in document["volumes"] if (r["contrast"], r["method"]) == place]
        expected = [row["NRMSE (RSS)"] for row in rows]  # a subject has one volume of a contrast
        np.testing.assert_allclose(sorted(found), sorted(expected))
        assert median == pytest.approx(np.median(expected))
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == list(METHODS)


def test_one_contrast_is_one_group_of_subject_means(figures: list[Figure]) -> None:
    document = {**make_document(missing=False), "contrasts": ["all"]}
    save_box_plots("unused.png", document, reference="coil-combined")
    axis = figures[0].axes[1]
    dots = [line.get_ydata() for line in axis.lines if line.get_marker() == "."]
    assert len(dots) == len(METHODS) and not axis.get_xticks().size
    values = [r["NRMSE (coil-combined)"] for r in document["volumes"] if r["method"] == METHODS[0]]
    np.testing.assert_allclose(dots[0], np.reshape(values, (4, 2)).mean(axis=1))  # subjects of two volumes


def test_missing_values(figures: list[Figure]) -> None:
    document = make_document()
    for row in document["volumes"]:
        row["SSIM (RSS)"] = None
        row["PSNR (RSS)"] = None if row["method"] == METHODS[0] else float("inf")
        row["UFLoss (RSS)"] = None if row["contrast"] == "PD" else 0.5
    save_box_plots("unused.png", document)
    assert next(axis.get_title() for axis in figures[0].axes if axis.axison) == "NRMSE ↓"
    for row in document["volumes"]:
        row.update({metric["name"]: None for metric in document["metrics"]})
    with pytest.raises(ValueError, match="document must have a volume with a value"):
        save_box_plots("unused.png", document)
    with pytest.raises(ValueError, match="reference must be one of RSS, coil-combined, got 'rss'"):
        choose_scores(document, ["NRMSE"], "rss", contrasts=None, by_slice=False)


def test_names_that_are_mathematics_are_drawn_as_text(tmp_path: Path) -> None:
    methods = ("$x^{$", "_hidden", "a" * 90)
    document = make_document(methods=methods)
    save_box_plots(tmp_path / "boxes.pdf", document)
    metrics = perception_distortion_metrics(document)
    assert metrics == ("NRMSE (RSS)", "UFLoss (RSS)")
    save_perception_distortion(tmp_path / "both.pdf", document, distortion=metrics[0], perception=metrics[1])
    assert (tmp_path / "boxes.pdf").stat().st_size > 5000


def test_the_same_report_is_the_same_pdf(tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        save_box_plots(tmp_path / name, make_document())
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()


def test_perception_and_distortion_of_each_method_with_intervals(figures: list[Figure]) -> None:
    document = make_document(missing=False)
    save_perception_distortion("unused.png", document, distortion="NRMSE (RSS)", perception="UFLoss (RSS)")
    points = figures[0].axes[0].containers
    rows = {(r["method"], r["metric"]): r for r in document["means"] if r["contrast"] == "all"}
    for method, point in zip(METHODS, points, strict=True):
        across, up = rows[method, "NRMSE (RSS)"], rows[method, "UFLoss (RSS)"]
        np.testing.assert_allclose(point[0].get_xydata(), [(across["mean"], up["mean"])])
        horizontal, vertical = (bar.get_segments()[0] for bar in point[2])
        np.testing.assert_allclose(horizontal[:, 0], [across["95% from"], across["95% to"]])
        np.testing.assert_allclose(vertical[:, 1], [up["95% from"], up["95% to"]])
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == list(METHODS)


def test_a_loss_that_was_trained_on_is_not_the_perception() -> None:
    document = make_document()
    for metric in document["metrics"]:
        metric["tested"] = metric["tested"] and metric["label"] != "UFLoss"
    assert perception_distortion_metrics(document) is None


def test_perception_distortion_without_a_method_is_refused() -> None:
    document = make_document()
    with pytest.raises(ValueError, match="must have a method with both"):
        save_perception_distortion(
            "unused.png", {**document, "means": []}, distortion="NRMSE (RSS)", perception="UFLoss (RSS)"
        )


def test_spectra_are_lines_of_means_with_intervals(figures: list[Figure]) -> None:
    document = make_document(missing=False)
    with pytest.raises(ValueError, match="document must have a method with scores spectrum 0-"):
        save_spectra("unused.png", document)
    document["metrics"] += [{**document["metrics"][-1], "name": band, "label": band} for band in SPECTRUM]
    row = {"contrast": "all", "subjects": 4, "std": 0.1}
    for index, method in enumerate(METHODS):
        for place, band in enumerate(SPECTRUM):
            ends = {"mean": 1 - 0.1 * place * index, "95% from": 0.4, "95% to": 1.1}
            document["means"].append({**row, "metric": band, "method": method, **ends})
    save_spectra("unused.png", document)
    for index, line in enumerate(figures[-1].axes[0].containers):
        np.testing.assert_allclose(line[0].get_xydata()[:, 1], 1 - 0.1 * index * np.arange(4))
        np.testing.assert_allclose([bar[:, 1] for bar in line[2][0].get_segments()], [[0.4, 1.1]] * 4)
    assert [text.get_text() for text in figures[-1].legends[0].get_texts()] == list(METHODS)
