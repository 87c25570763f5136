"""The patches with the largest gradients."""

import numpy as np
import torch
from helpers import randn_complex

from fastmri_ufloss.report.figures.drawing import textured_squares


def noise(rows: int, cols: int) -> np.ndarray:
    return randn_complex(rows, cols, seed=2, dtype=torch.complex128).abs().numpy()


def test_first_square_has_the_largest_sum_of_gradients() -> None:
    image = noise(23, 30)
    gradients = np.hypot(*np.gradient(np.minimum(image, np.percentile(image, 95))))
    sums = {
        (row, col): gradients[row : row + 8, col : col + 8].sum() for row in range(23 - 7) for col in range(30 - 7)
    }
    assert textured_squares(image, 8, organ=True) == [(*max(sums, key=sums.__getitem__), 8)]


def test_squares_do_not_overlap() -> None:
    corners = np.array([square[:2] for square in textured_squares(noise(24, 32), 8, count=4)])
    distances = np.abs(corners[:, None] - corners[None]).max(axis=2)
    assert (distances[~np.eye(4, dtype=bool)] >= 8).all()


def test_bright_fat_is_not_all_there_is() -> None:
    image = np.ones((40, 40))
    image[30:32, 30:32] = 1000.0
    image[4:12, 4:12] += np.random.default_rng(0).random((8, 8))
    ((row, col, _),) = textured_squares(image, 8, organ=True)
    assert row < 12 and col < 12


def test_no_more_squares_than_there_is_room_for() -> None:
    assert len(textured_squares(noise(9, 17), 8, count=5)) <= 2
    assert len(textured_squares(np.ones((9, 9)), 8, count=2)) == 1
