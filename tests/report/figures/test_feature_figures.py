"""What the figures of feature networks show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import randn_complex
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import correlation_maps, deblurring, noise_and_blur, retrieval
from fastmri_ufloss.report.figures.noise_and_blur import LEVELS, summarize_curve

PATCH = np.ones((8, 8))


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
    noise_and_blur.save_degradation_curves("a.png", LEVELS, curves(), randn_complex(20, 16), num_images=2)
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
    with pytest.raises(ValueError, match=r"curves\['noise'\] must have 'UFLoss', got \[\]"):
        noise_and_blur.save_degradation_curves("a.png", LEVELS, {"noise": {}}, PATCH, num_images=1)


def test_descent_shows_its_images_where_the_curves_are_marked(figures: list[Figure]) -> None:
    target = randn_complex(24, 18)
    images = {0: 0.5 * target, 10: 0.9 * target}
    descent = deblurring.Descent("sgd", [0, 5, 10], [0.4, 0.2, 0.1], [0.3, 0.2, 0.15], images)
    deblurring.save_descent("a.png", target, descent)
    (figure,) = figures
    lines = [line for axis in figure.axes[:2] for line in axis.lines]
    assert [list(line.get_ydata()) for line in lines if len(line.get_ydata()) == 3] == [descent.ufloss, descent.nrmse]
    assert [list(line.get_xdata()) for line in lines if len(line.get_xdata()) == 2] == [[0, 10]] * 2
    assert sum(len(axis.images) for axis in figure.axes) == 6  # three images with their zoom
    assert "step 10\nUFLoss 0.100\nNRMSE 0.150" in texts(figure)
    with pytest.raises(ValueError, match="a step that was measured, got"):
        deblurring.save_descent("a.png", target, descent._replace(images={3: target}))


def test_retrieval_has_borders_by_inner_product(figures: list[Figure]) -> None:
    sides = {"nearest": (0.9, 0.5), "farthest": (-0.4,)}
    query: dict[str, Any] = {"volume": "a.h5", "slice": 1}
    query |= {side: [{"inner_product": value} for value in values] for side, values in sides.items()}
    patches = {"query": [PATCH], **{side: [PATCH] * len(values) for side, values in sides.items()}}
    retrieval.save_retrieval("a.png", [query, query], [patches, patches])
    (figure,) = figures
    shown = texts(figure)
    assert all(text in shown for text in ("nearest", "farthest", "0.90", "0.50", "-0.40", "a\nslice 1"))
    borders = [axis.spines["left"].get_edgecolor() for axis in figure.axes if axis.get_xlabel() in ("0.90", "-0.40")]
    assert len(borders) == 4 and borders[0] == borders[2] != borders[1]
    with pytest.raises(ValueError, match=r"queries must be at least one, with as many patches each, got \[\(2, 0\)"):
        retrieval.save_retrieval("a.png", [query, {**query, "farthest": []}], [patches, patches])
    with pytest.raises(ValueError, match="queries must be at least one"):
        retrieval.save_retrieval("a.png", [], [])


def mapped(name: str, value: float) -> correlation_maps.MappedImage:
    values = np.full((2, 4, 3), -0.5)
    values[:, 2, 1] = value
    image = np.arange(20.0 * 16).reshape(20, 16)
    return correlation_maps.MappedImage(name, image, dict.fromkeys(("UFLoss", "SSIM"), values))


def test_maps_lie_at_the_centers_of_their_patches(figures: list[Figure]) -> None:
    correlation_maps.save_correlation_maps(
        "a.png", [mapped("same image", 1.0), mapped("another", 0.6)], [(8, 4), (0, 0)], patch_size=8, stride=4
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
    images = [mapped("same image", 1.0), mapped("another", 0.6)]
    correlation_maps.save_best_matches("a.png", images, [(8, 4), (0, 0)], patch_size=8, stride=4)
    (figure,) = figures
    found = [axis.images[0].get_array()[0, 0] for axis in figure.axes]
    assert found == [132, 132, 132, 0, 132, 132]  # 8 * 16 + 4, and the second source patch at the corner
    assert texts(figure).count("UFLoss 0.60") == 2
    with pytest.raises(ValueError, match="images must be at least two"):
        correlation_maps.save_best_matches("a.png", images[:1], [(8, 4)], patch_size=8, stride=4)
    with pytest.raises(ValueError, match="images and corners must be at least one and from 1 to 4, got 2 and 0"):
        correlation_maps.save_correlation_maps("a.png", images, [], patch_size=8, stride=4)


def test_figures_are_written(tmp_path: Path) -> None:
    images = [mapped("same image", 1.0), mapped("another", 0.6)]
    correlation_maps.save_correlation_maps(tmp_path / "a.png", images, [(8, 4)], patch_size=8, stride=4)
    correlation_maps.save_best_matches(tmp_path / "b.png", images, [(8, 4)], patch_size=8, stride=4)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))
