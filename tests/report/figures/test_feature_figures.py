"""What the figures of feature networks show."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import randn_complex
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import noise_and_blur, retrieval
from fastmri_ufloss.report.figures.noise_and_blur import LEVELS, summarize_curve


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(item.get_text() for item in figure.findobj(lambda item: hasattr(item, "get_text")))


def curves() -> dict[str, Any]:
    rising = [[float(i) for i in range(11)], [3.0 * i for i in range(11)]]
    flat = [[0.0] * 11]
    return {
        kind: {"UFLoss": summarize_curve(levels, rising), "MSE": summarize_curve(levels, flat)}
        for kind, levels in LEVELS.items()
    }


def test_degradation_curves_have_spread_and_rho(figures: list[Figure]) -> None:
    noise_and_blur.save_degradation_curves("a.png", curves(), randn_complex(20, 16), num_images=2)
    (figure,) = figures
    for row in (figure.axes[:5], figure.axes[5:10]):
        (own,) = row[0].lines
        np.testing.assert_allclose(own.get_ydata(), [2.0 * i for i in range(11)])
        band = row[0].collections[0].get_paths()[0].vertices
        assert band[:, 1].max() == pytest.approx(30) and band[:, 1].min() == 0
        assert [line.get_ydata()[-1] for line in row[1].lines] == [1.0, 0.0]
        assert all(len(axis.images) == 1 for axis in row[2:])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), range(11))  # in percent
    shown = texts(figure)
    for text in (r"UFLoss, $\rho$ = 1.00", r"MSE, $\rho$ = -", "mean ± SD of 2 images", "b = 5%", "R = 4"):
        assert text in shown, text


def test_descent_shows_its_images_where_the_curves_are_marked(figures: list[Figure]) -> None:
    target = randn_complex(24, 18)
    images = {0: 0.5 * target, 10: 0.9 * target}
    descent = noise_and_blur.Descent("sgd", [0, 5, 10], [0.4, 0.2, 0.1], [0.3, 0.2, 0.15], images)
    noise_and_blur.save_descent("a.png", target, descent)
    (figure,) = figures
    lines = [line for axis in figure.axes for line in axis.lines]
    assert [list(line.get_ydata()) for line in lines] == [descent.ufloss, descent.nrmse]
    assert all(list(line.get_xdata()) == descent.steps and line.get_markevery() == [0, 2] for line in lines)
    assert sum(len(axis.images) for axis in figure.axes) == 6  # three images with their zoom
    assert "step 10\nUFLoss 0.100\nNRMSE 0.150" in texts(figure)


def test_retrieval_has_borders_by_inner_product(figures: list[Figure]) -> None:
    net = SimpleNamespace(patch_size=8)
    images: Any = SimpleNamespace(net=net, place=lambda *place: place, read=lambda place: torch.ones(12, 12))
    query: dict[str, Any] = {"volume": "a.h5", "slice": 1, "corner": [2, 3]}
    for side, values in (("nearest", (0.9, 0.5)), ("farthest", (-0.4, -0.3))):
        query[side] = [{**query, "inner_product": value} for value in values]
    retrieval.save_retrieval("a.png", [query, query], images, images)
    (figure,) = figures
    shown = texts(figure)
    assert all(text in shown for text in ("nearest", "farthest", "0.90", "0.50", "-0.40", "a\nslice 1"))
    borders = [axis.spines["left"].get_edgecolor() for axis in figure.axes if axis.get_xlabel() in ("0.90", "-0.40")]
    assert len(borders) == 4 and borders[0] == borders[2] != borders[1]


def mapped(value: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    values = np.full((2, 4, 3), -0.5)
    values[:, 2, 1] = value
    image = np.arange(20.0 * 16).reshape(20, 16)
    return image, dict.fromkeys(("UFLoss", "SSIM"), values)


def test_maps_lie_at_the_centers_of_their_patches(figures: list[Figure]) -> None:
    retrieval.save_correlation_maps(
        "a.png", {"same image": mapped(1.0), "another": mapped(0.6)}, [(8, 4), (0, 0)], patch_size=8, stride=4
    )
    (figure,) = figures
    heat = figure.axes[1]
    # the patch at (8, 4) has its center at (11.5, 7.5), which is where its pixel of the map and the cross are
    left, right, bottom, top = heat.images[0].get_extent()
    assert (left + right) / 2 == 3.5 + 4 * 1 and top + 2.5 * 4 == 3.5 + 4 * 2 and bottom - top == 16
    assert heat.lines[0].get_xydata().tolist() == [[7.5, 11.5]]
    assert heat.images[0].get_clim() == (0, 1)
    outlines = [(patch.get_x(), patch.get_y(), patch.get_width()) for patch in figure.axes[0].patches]
    assert outlines == [(3.5, 7.5, 8), (-0.5, -0.5, 8)]
    assert not figure.axes[5].patches
    assert "max 0.60" in texts(figure)
    colors = [axis.spines["left"].get_edgecolor() for axis in figure.axes[1:5]]
    assert colors[0] == colors[2] != colors[1] == colors[3]


def test_best_matches_are_cut_where_they_were_found(figures: list[Figure]) -> None:
    images = {"same image": mapped(1.0), "another": mapped(0.6)}
    retrieval.save_best_matches("a.png", images, [(8, 4), (0, 0)], patch_size=8, stride=4)
    (figure,) = figures
    found = [axis.images[0].get_array()[0, 0] for axis in figure.axes]
    assert found == [132, 132, 132, 0, 132, 132]  # 8 * 16 + 4, and the second source patch at the corner
    assert texts(figure).count("UFLoss 0.60") == 2


def test_figures_are_written(tmp_path: Path) -> None:
    images = {"same image": mapped(1.0), "another": mapped(0.6)}
    retrieval.save_correlation_maps(tmp_path / "a.png", images, [(8, 4)], patch_size=8, stride=4)
    retrieval.save_best_matches(tmp_path / "b.png", images, [(8, 4)], patch_size=8, stride=4)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))
