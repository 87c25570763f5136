"""Patches by their features, and the search for them."""

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import randn_complex

from fastmri_ufloss.losses.ufloss import patch_features
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures.images import FigureImages
from fastmri_ufloss.report.figures.retrieval import build_bank, features_at, look_up, random_corners, search


def unit_vectors(count: int, seed: int) -> torch.Tensor:
    values = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=1)


@pytest.mark.parametrize("largest", [True, False])
def test_search_finds_what_sorting_all_products_finds(largest: bool) -> None:
    bank = unit_vectors(50, 1)
    allowed = torch.rand(50, generator=torch.Generator().manual_seed(2)) > 0.4
    for query in unit_vectors(3, 0):
        for mask in (torch.ones(50, dtype=torch.bool), allowed):
            values, rows = search(query, bank, mask, count=6, largest=largest)
            products = bank.double().numpy() @ query.double().numpy()
            products[~mask.numpy()] = -np.inf if largest else np.inf
            order = np.argsort(-products if largest else products)[:6]
            np.testing.assert_array_equal(rows.numpy(), order)
            np.testing.assert_allclose(values.numpy(), products[order], atol=1e-6)


def test_search_in_a_large_bank() -> None:
    bank = torch.zeros(409_600, 8)
    bank[[5, 300_000], 0] = torch.tensor([0.5, 1.0])
    values, rows = search(torch.eye(8)[0], bank, bank[:, 0] >= 0, count=2, largest=True)
    assert rows.tolist() == [300_000, 5] and values.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("in_chans", [1, 2])
def test_features_are_those_of_the_loss(in_chans: int) -> None:
    image = randn_complex(20, 17)
    image = image if in_chans == 2 else image.abs()
    net = SmallFeatureNet(in_chans)
    rows, cols = torch.meshgrid(torch.arange(0, 13, 3), torch.arange(0, 10, 3), indexing="ij")
    corners = torch.stack([rows.flatten(), cols.flatten()], dim=1)
    found = features_at(net, image, corners, chunk_size=4)
    expected = patch_features(net, image[None, None], image_scale(image[None]), stride=3)[0]
    torch.testing.assert_close(found, expected)


def test_features_name_bad_input() -> None:
    net, image = SmallFeatureNet(), randn_complex(20, 17)
    with pytest.raises(ValueError, match="patches of 8x8 inside the image of 20x17"):
        features_at(net, image, torch.tensor([[13, 0]]))
    with pytest.raises(ValueError, match="inside the image"):
        features_at(net, image, torch.tensor([[0, -1]]))
    with pytest.raises(ValueError, match="images must be complex for a feature network of 2 channels"):
        features_at(net, image.abs(), torch.tensor([[0, 0]]))
    with pytest.raises(ValueError, match="feature_net must be in eval mode"):
        features_at(SmallFeatureNet().train(), image, torch.tensor([[0, 0]]))


def test_places_depend_on_the_key_alone_and_fill_the_image() -> None:
    corners = random_corners((20, 12), 8, 500, (1, "a.h5", 2))
    assert torch.equal(corners, random_corners((20, 12), 8, 500, (1, "a.h5", 2)))
    assert corners.amin(dim=0).tolist() == [0, 0] and corners.amax(dim=0).tolist() == [12, 4]
    for key in ((2, "a.h5", 2), (1, "b.h5", 2), (1, "a.h5", 3)):
        assert not torch.equal(corners, random_corners((20, 12), 8, 500, key))


@pytest.fixture
def images(tmp_path: Path) -> FigureImages:
    """Volumes of 3 and of 2 slices."""
    torch.manual_seed(0)
    (tmp_path / "data").mkdir()
    for name, count in (("a", 3), ("b", 2)):
        with h5py.File(tmp_path / "data" / f"{name}.h5", "w") as file:
            file["reconstruction"] = randn_complex(count, 40, 36, seed=count).abs().numpy()
    return FigureImages(tmp_path / "data", PatchFeatureNet(1, patch_size=32, num_features=8).eval())


@pytest.mark.parametrize("size", [3, 12, 17])
def test_bank_has_equally_many_patches_of_each_slice(images: FigureImages, tmp_path: Path, size: int) -> None:
    bank = build_bank(images, size=size, seed=1, cache_dir=tmp_path / "cache")
    assert bank.features.shape == (size, 8) and bank.places.shape == (size, 4)
    counts = Counter((number, index) for number, index, *_ in bank.places.tolist())
    shares = [counts[place] for place in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))]
    assert sum(shares) == size and max(shares) - min(shares) <= 1
    for number, index in counts:
        rows = (bank.places[:, :2] == torch.tensor([number, index])).all(dim=1)
        expected = features_at(images.net, images.read((number, index)), bank.places[rows, 2:])
        torch.testing.assert_close(bank.features[rows], expected)


def test_damaged_files_of_a_bank_are_written_again(images: FigureImages, tmp_path: Path) -> None:
    bank = build_bank(images, size=7, seed=0, cache_dir=tmp_path / "cache")
    for content in (b"", b"PK\x03\x04 and no more", b"something else"):
        for file in (tmp_path / "cache").iterdir():
            file.write_bytes(content)
        again = build_bank(images, size=7, seed=0, cache_dir=tmp_path / "cache")
        assert torch.equal(again.features, bank.features) and torch.equal(again.places, bank.places)
    with pytest.raises(ValueError, match="size of the bank must be at least 1, got 0"):
        build_bank(images, size=0, seed=0, cache_dir=tmp_path)


def test_patches_of_other_subjects_are_counted(images: FigureImages, tmp_path: Path) -> None:
    bank = build_bank(images, size=10, seed=0, cache_dir=tmp_path / "cache")  # 4 of b
    (result,) = look_up(images, [((0, 0), (1, 2))], bank, images, count=4)
    assert {hit["volume"] for side in ("nearest", "farthest") for hit in result[side]} == {"b.h5"}
    for count, message in ((0, "count must be at least 1, got 0"), (5, "5 patches of other subjects than a, got 4")):
        with pytest.raises(ValueError, match=message):
            look_up(images, [((0, 0), (1, 2))], bank, images, count=count)
