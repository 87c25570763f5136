"""Patches by their features, and the search for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import randn_complex

from fastmri_ufloss.losses.ufloss import patch_features
from fastmri_ufloss.metrics.feature_bank import (
    features_at,
    random_corners,
    read_features,
    search,
    share_out,
    write_features,
)
from fastmri_ufloss.mri.intensity import image_scale


def unit_vectors(count: int, seed: int) -> torch.Tensor:
    values = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=1)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
@pytest.mark.parametrize("largest", [True, False])
def test_search_finds_what_sorting_all_products_finds(chunk_size: int, largest: bool) -> None:
    queries, bank = unit_vectors(3, 0), unit_vectors(50, 1)
    allowed = torch.rand(3, 50, generator=torch.Generator().manual_seed(2)) > 0.4
    for mask in (None, allowed):
        values, rows = search(queries, bank, count=6, largest=largest, allowed=mask, chunk_size=chunk_size)
        products = queries.double().numpy() @ bank.double().numpy().T
        if mask is not None:
            products[~mask.numpy()] = -np.inf if largest else np.inf
        order = np.argsort(-products if largest else products, axis=1)[:, :6]
        np.testing.assert_array_equal(rows.numpy(), order)
        np.testing.assert_allclose(values.numpy(), np.take_along_axis(products, order, axis=1), atol=1e-6)


def test_search_in_a_large_bank_holds_one_chunk_of_products() -> None:
    bank = torch.zeros(409_600, 8)
    bank[[5, 300_000], 0] = torch.tensor([0.5, 1.0])
    values, rows = search(torch.eye(8)[:1], bank, count=2)
    assert rows.tolist() == [[300_000, 5]] and values.tolist() == [[1.0, 0.5]]


def test_search_names_bad_input() -> None:
    queries, bank = unit_vectors(2, 0), unit_vectors(4, 1)
    allowed = torch.tensor([[True] * 4, [True, False, False, False]])
    with pytest.raises(ValueError, match="count must be from 1 to the 1 rows that each query may find, got 2"):
        search(queries, bank, count=2, allowed=allowed)
    with pytest.raises(ValueError, match="count must be from 1 to the 4 rows"):
        search(queries, bank, count=5)
    with pytest.raises(ValueError, match="queries and bank must be"):
        search(queries[:, :3], bank, count=1)
    with pytest.raises(ValueError, match=r"allowed must have shape \(2, 4\), got \(4, 2\)"):
        search(queries, bank, count=1, allowed=allowed.T)


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


def test_patches_are_shared_out_equally() -> None:
    for count, places in ((10, 4), (3, 7), (409_600, 538)):
        shares = share_out(count, places)
        assert sum(shares) == count and len(shares) == places and max(shares) - min(shares) <= 1


def test_places_depend_on_the_key_alone_and_fill_the_image() -> None:
    corners = random_corners((20, 12), 8, 500, (1, "a.h5", 2))
    assert torch.equal(corners, random_corners((20, 12), 8, 500, (1, "a.h5", 2)))
    assert corners.amin(dim=0).tolist() == [0, 0] and corners.amax(dim=0).tolist() == [12, 4]
    for key in ((2, "a.h5", 2), (1, "b.h5", 2), (1, "a.h5", 3)):
        assert not torch.equal(corners, random_corners((20, 12), 8, 500, key))
    with pytest.raises(ValueError, match=r"at least as large as a patch of 8x8, got 20x7 in a\.h5"):
        random_corners((20, 7), 8, 1, (1, "a.h5", 2))


def test_volume_is_written_and_read(tmp_path: Path) -> None:
    net, images = SmallFeatureNet(), [randn_complex(20, 12, seed=seed) for seed in (0, 1)]
    file = tmp_path / "bank" / "a.npz"
    write_features(file, net, zip((3, 5), images, strict=True), {3: 4, 5: 2}, volume_name="a.h5", seed=1)
    bank = read_features(file, 7)
    assert bank is not None and bank.features.shape == (6, 6)
    assert bank.places[:, :2].tolist() == [[7, 3]] * 4 + [[7, 5]] * 2
    torch.testing.assert_close(bank.features[4:], features_at(net, images[1], bank.places[4:, 2:]))


def test_damaged_file_is_none(tmp_path: Path) -> None:
    assert read_features(tmp_path / "missing.npz", 0) is None
    for content in (b"", b"PK\x03\x04 and no more", b"something else"):
        (tmp_path / "a.npz").write_bytes(content)
        assert read_features(tmp_path / "a.npz", 0) is None
