import json

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from fastmri_ufloss.models import PRETRAINED, PatchFeatureNet, load_ufloss_checkpoint, pretrained_feature_net
from fastmri_ufloss.models.feature_net import feature_net_path
from fastmri_ufloss.mri.intensity import SCALE_RULE, image_scale, to_patch_channels


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return PatchFeatureNet(2, num_features=16, patch_size=32, training_data="knees").eval()


@pytest.mark.parametrize("in_chans", [1, 2])
def test_features_are_unit_vectors_and_do_not_depend_on_the_batch(in_chans):
    torch.manual_seed(0)
    net = PatchFeatureNet(in_chans, num_features=16, patch_size=32).eval()
    patches = torch.randn(3, in_chans, 32, 32)
    features = net(patches)
    assert features.shape == (3, 16)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(features[1:2], net(patches[1:2]), atol=1e-5, rtol=0)


def test_features_are_unit_vectors_in_float32_under_autocast(net):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = net(torch.randn(2, 2, 32, 32))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_chans": 3}, "in_chans must be 1"),
        ({"num_features": 0}, "num_features must be at least 1, got 0"),
        ({"patch_size": 31}, "patch_size must be at least 32, got 31"),
        ({"patch_size": 38, "architecture": "narrow"}, "patch_size must be at least 39, got 38"),
        ({"architecture": "vgg"}, "architecture must be 'resnet18' or 'narrow', got 'vgg'"),
        ({"width": 32}, "width must be None for 'resnet18', got 32"),
        ({"width": 0, "architecture": "narrow"}, "width must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PatchFeatureNet(**kwargs)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 2, 33, 32), (2, 32, 32)])
def test_patches_of_another_shape(net, shape):
    with pytest.raises(ValueError, match=r"patches must be real with shape \(n, 2, 32, 32\)"):
        net(torch.zeros(shape))


def test_complex_patches(net):
    with pytest.raises(ValueError, match="complex64"):
        net(torch.zeros(1, 2, 32, 32, dtype=torch.complex64))


@pytest.mark.parametrize("patch_size", [39, 40, 45, 60])
@pytest.mark.parametrize("stride", [4, 12])
def test_narrow_network_sees_all_patches_of_a_grid_at_once(patch_size, stride):
    torch.manual_seed(0)
    net = PatchFeatureNet(2, num_features=5, patch_size=patch_size, architecture="narrow", width=3)
    net(torch.randn(4, 2, patch_size, patch_size))  # batch norm with means of its own
    net.eval()
    images = torch.randn(2, 2, 65, 74)
    rows, cols = (range(0, size - patch_size + 1, stride) for size in images.shape[2:])
    patches = [images[:, :, r : r + patch_size, c : c + patch_size] for r in rows for c in cols]
    expected = torch.stack([net(patch) for patch in patches], dim=1)
    features = net.grid_features(images, stride=stride)
    assert features.shape == (2, len(rows) * len(cols), 5)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(features.norm(dim=2), torch.ones(features.shape[:2]))


def test_grid_of_a_network_that_has_none(net):
    narrow = PatchFeatureNet(2, patch_size=40, architecture="narrow")
    with pytest.raises(ValueError, match="stride must be a multiple of 4, got 6"):
        narrow.grid_features(torch.zeros(1, 2, 50, 50), stride=6)
    assert narrow.grid_step == 4 and net.grid_step is None
    with pytest.raises(ValueError, match="grid_features is for the architecture 'narrow', not 'resnet18'"):
        net.grid_features(torch.zeros(1, 2, 50, 50), stride=4)


def test_narrow_network_is_saved_and_files_of_the_first_version_are_read(net, tmp_path):
    path = tmp_path / "net.safetensors"
    narrow = PatchFeatureNet(1, num_features=7, patch_size=44, architecture="narrow", width=5).eval()
    narrow.save(path)
    loaded = PatchFeatureNet.load(path)
    assert (loaded.architecture, loaded.width, loaded.patch_size) == ("narrow", 5, 44)
    patches = torch.randn(2, 1, 44, 44)
    assert torch.equal(loaded(patches), narrow(patches))
    net.save(path)
    settings = json.loads(path.with_suffix(".json").read_text())
    first = {name: value for name, value in settings.items() if name not in ("architecture", "width")}
    path.with_suffix(".json").write_text(json.dumps({**first, "format_version": 1}))
    patches = torch.randn(2, 2, 32, 32)
    assert torch.equal(PatchFeatureNet.load(path)(patches), net(patches))


@pytest.mark.parametrize("name", PRETRAINED)
def test_networks_that_ship(name):
    net = pretrained_feature_net(name)
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    assert (net.in_chans, net.patch_size) == (2 if name.endswith("complex") else 1, 60)
    image = torch.randn(1, net.in_chans, 72, 72)
    features = net.grid_features(image, stride=12)
    assert features.shape == (1, 4, net.num_features)
    torch.testing.assert_close(features[:, 0], net(image[:, :, :60, :60]), atol=1e-5, rtol=0)
    # features are means over a patch, so that its size may be another
    small = pretrained_feature_net(name, patch_size=48)
    assert small(image[:, :, :48, :48]).shape == (1, net.num_features)
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), net.parameters(), strict=True))
    assert torch.equal(PatchFeatureNet.load(name)(image[:, :, :60, :60]), net(image[:, :, :60, :60]))


def test_networks_that_ship_are_small_and_tell_structure_from_noise():
    files = [feature_net_path(name) for name in PRETRAINED]
    assert sum(file.stat().st_size for file in files) < 6e6
    net = pretrained_feature_net("general-magnitude")
    rows, cols = torch.meshgrid(torch.arange(120.0), torch.arange(120.0), indexing="ij")
    image = 1 + torch.sin(rows / 4) * torch.cos(cols / 7 + rows / 30)
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    one, near, other = (net(each[None, None, :60, :60]) for each in (image, image + noise, image.flip(0)))
    assert float((one - near).square().sum()) < 0.5 * float((one - other).square().sum())


def test_name_of_no_network_that_ships(net, tmp_path):
    with pytest.raises(ValueError, match="name must be one of general-complex, general-magnitude, got 'general'"):
        pretrained_feature_net("general")
    with pytest.raises(FileNotFoundError, match="those that ship are general-complex, general-magnitude"):
        PatchFeatureNet.load("knees.safetensors")
    with pytest.raises(ValueError, match="patch_size must be at least 39, got 38"):
        pretrained_feature_net("general-complex", patch_size=38)
    net.save(tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"patch_size must be 32, for which .*net\.safetensors was trained, got 48"):
        PatchFeatureNet.load(tmp_path / "net.safetensors", patch_size=48)


def test_weights_that_were_changed_are_refused(net, tmp_path):
    path = tmp_path / "net.safetensors"
    net.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.safetensors must have the hash in .*net\.json: one of the two was"):
        PatchFeatureNet.load(path)


def test_weights_of_half_precision(net, tmp_path):
    net.save(tmp_path / "half.safetensors", half=True)
    net.save(tmp_path / "full.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.51 * sizes[1]
    loaded = PatchFeatureNet.load(tmp_path / "half.safetensors")
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    patches = torch.randn(2, 2, 32, 32)
    torch.testing.assert_close(loaded(patches), net(patches), atol=5e-3, rtol=0)


def test_save_and_load_give_the_same_network(net, tmp_path):
    path = tmp_path / "net.safetensors"
    net.save(path)
    loaded = PatchFeatureNet.load(path)
    assert not loaded.training
    assert (loaded.in_chans, loaded.num_features, loaded.patch_size) == (2, 16, 32)
    assert loaded.training_data == "knees"
    patches = torch.randn(2, 2, 32, 32)
    assert torch.equal(loaded(patches), net(patches))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.json", "net.safetensors"]
    assert json.loads((tmp_path / "net.json").read_text())["scale_rule"] == SCALE_RULE


def test_a_save_that_fails_leaves_the_old_file(net, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    net.save(path)
    before = path.read_bytes()

    def broken(weights, temporary):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("fastmri_ufloss.models.feature_net.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        net.save(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_load_refuses_what_save_did_not_write(net, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match=r"path must end in \.safetensors"):
        net.save(tmp_path / "net.pt")
    with pytest.raises(FileNotFoundError, match="no feature network"):
        PatchFeatureNet.load(path)
    net.save(path)
    settings = json.loads(path.with_suffix(".json").read_text())

    def load_with(**changes):
        path.with_suffix(".json").write_text(json.dumps({**settings, **changes}))
        return PatchFeatureNet.load(path)

    with pytest.raises(ValueError, match=r"scale_rule in .* must be 'target_p95', got 'max'"):
        load_with(scale_rule="max")
    with pytest.raises(ValueError, match="format_version"):
        load_with(format_version=3)
    with pytest.raises(ValueError, match="must hold the settings"):
        load_with(in_chans="two")
    with pytest.raises(ValueError, match=r"net\.safetensors must hold .*: network\.fc\.\w+ must have shape"):
        load_with(num_features=8)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="must be a JSON file"):
        PatchFeatureNet.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="no settings"):
        PatchFeatureNet.load(path)
    load_with_settings = path.with_suffix(".json")
    load_with_settings.write_text(json.dumps({**settings, "sha256": ""}))  # as of files without a hash
    path.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="must be a safetensors file"):
        PatchFeatureNet.load(path)


def _resnet(in_chans):
    torch.manual_seed(1)
    network = resnet18(weights=None, num_classes=16)
    network.conv1 = torch.nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
    return network.eval()


@pytest.mark.parametrize(("in_chans", "prefix", "wrapped"), [(2, "network.", True), (1, "", False)])
def test_released_checkpoint(tmp_path, in_chans, prefix, wrapped):
    network = _resnet(in_chans)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    state["memory_bank"] = torch.randn(16, 5)
    torch.save({"epoch": 3, "state_dict": state} if wrapped else state, tmp_path / "ckpt.pth")
    net = load_ufloss_checkpoint(tmp_path / "ckpt.pth", patch_size=40)
    assert (net.in_chans, net.num_features, net.patch_size, net.training) == (in_chans, 16, 40, False)
    patches = torch.randn(2, in_chans, 40, 40)
    torch.testing.assert_close(net(patches), F.normalize(network(patches), dim=1))


def test_released_checkpoint_bad_input(tmp_path):
    path = tmp_path / "ckpt.pth"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_ufloss_checkpoint(path)
    path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"must be a file of torch\.save"):
        load_ufloss_checkpoint(path)
    torch.save({"state_dict": {"memory_bank": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match=r"must hold conv1\.weight and fc\.weight .* got memory_bank"):
        load_ufloss_checkpoint(path)
    state = _resnet(2).state_dict()
    del state["layer2.0.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"missing network\.layer2\.0\.conv1\.weight"):
        load_ufloss_checkpoint(path)


def test_patch_channels_keep_the_values():
    images = torch.randn(2, 4, 5, dtype=torch.complex64)
    channels = to_patch_channels(images, 2)
    assert channels.shape == (2, 2, 4, 5)
    assert torch.equal(torch.complex(channels[:, 0], channels[:, 1]), images)
    assert torch.equal(to_patch_channels(images.abs(), 1)[:, 0], images.abs())


def test_patch_channels_name_the_way_out():
    complex_images = torch.zeros(1, 4, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"1 channel, got torch.complex64: take the magnitude or use a net"):
        to_patch_channels(complex_images, 1)
    with pytest.raises(ValueError, match=r"complex for a feature network of 2 channels, got torch.float32"):
        to_patch_channels(complex_images.real, 2)
    with pytest.raises(ValueError, match=r"images must have shape \(n, rows, cols\)"):
        to_patch_channels(complex_images[0], 2)
    with pytest.raises(ValueError, match="in_chans must be 1"):
        to_patch_channels(complex_images, 3)


def test_image_scale_is_the_95th_percentile_and_scales_with_the_image():
    images = torch.arange(1.0, 101.0).reshape(1, 10, 10)
    assert image_scale(images).tolist() == [95.0]
    assert image_scale(-1j * images).tolist() == [95.0]
    torch.testing.assert_close(image_scale(images * 1e-12), torch.tensor([95e-12]))
    assert image_scale(images.half()).dtype == torch.float32


def test_image_scale_of_nearly_empty_images():
    images = torch.zeros(2, 10, 10)
    images[0, 0, 0] = 3
    assert image_scale(images).tolist() == [3.0, 1.0]
    with pytest.raises(ValueError, match="images must have shape"):
        image_scale(torch.zeros(5))
