from urllib.error import URLError

import pytest
import torch
import torchvision

from fastmri_ufloss.models import VGGFeatures, load_vgg_features

VGG16_FILE = "vgg16-397923af.pth"


def torchvision_features(arch):
    """torchvision's own layers with random weights, without the half gigabyte of the classifier."""
    with torch.device("meta"):
        features = getattr(torchvision.models, arch)(weights=None).features
    features = features.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in features.parameters():
            parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    return features


@pytest.fixture(scope="module")
def vgg16_features():
    return torchvision_features("vgg16")


@pytest.fixture(scope="module")
def vgg16_state(vgg16_features):
    """What torch.save makes small: the first two blocks."""
    return {f"features.{name}": tensor for name, tensor in vgg16_features[:9].state_dict().items()}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torchvision, behind a network that does not answer."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def images(n=2, rows=32, cols=33):
    return torch.rand(n, 3, rows, cols, generator=torch.Generator().manual_seed(1))


def normalized(x):
    return torchvision.transforms.functional.normalize(x, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("layer", "index"), [("conv1_1", 0), ("relu1_1", 1), (None, 8), ("pool2", 9), ("relu3_3", 15), ("pool5", 30)]
)
def test_maps_of_vgg16_are_those_of_torchvision(vgg16_features, layer, index):
    net = VGGFeatures("vgg16", layer=layer)
    net.load_state_dict({f"features.{k}": v for k, v in vgg16_features[: index + 1].state_dict().items()})
    assert len(net.features) == index + 1
    torch.testing.assert_close(net(images()), vgg16_features[: index + 1](normalized(images())))


def test_maps_of_vgg19_are_those_of_torchvision():
    features = torchvision_features("vgg19")
    for layer, index in (("relu2_2", 8), ("relu3_4", 17), ("conv4_1", 19), (None, 35)):
        net = VGGFeatures("vgg19", layer=layer)
        net.load_state_dict({f"features.{k}": v for k, v in features[: index + 1].state_dict().items()})
        torch.testing.assert_close(net(images(1)), features[: index + 1](normalized(images(1))))
    assert net.layer == "relu5_4"


def test_a_layer_is_the_same_whatever_follows_it():
    whole = VGGFeatures("vgg16", layer="relu3_1")
    for layer in ("conv1_2", "relu2_2"):
        part = VGGFeatures("vgg16", layer=layer)
        part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
        x = images()
        maps = whole.features[: len(part.features)]((x - whole.mean) / whole.std)
        before = maps.clone()
        whole.features[len(part.features) :](maps)
        assert torch.equal(maps, before)
        torch.testing.assert_close(part(x), before)


def test_random_weights_are_fixed_by_the_seed_and_keep_the_signal():
    torch.manual_seed(3)
    first = VGGFeatures(layer="relu3_3")
    torch.manual_seed(3)
    again, other = VGGFeatures(layer="relu3_3"), VGGFeatures(layer="relu3_3")
    assert torch.equal(first(images()), again(images()))
    assert not torch.allclose(first(images()), other(images()))
    assert 0.1 < first(images()).std().item() < 10


@pytest.mark.parametrize("layer", ["conv1_1", "relu1_2", "pool1", "conv2_2", "relu2_2"])
def test_gradient_is_that_of_finite_differences(layer):
    torch.manual_seed(0)
    net = VGGFeatures(layer=layer).double()
    x = images(1, 6, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x).square().mean(), x, fast_mode=True)
    loss = net(x).mean()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


@pytest.mark.parametrize(("layer", "size"), [("conv1_1", 1), ("relu1_2", 1), ("pool1", 2), ("relu3_1", 4)])
def test_smallest_image(layer, size):
    net = VGGFeatures(layer=layer)
    assert net.min_size == size
    assert net(images(1, size, size)).shape[2:] == (1, 1)
    if size > 1:
        with pytest.raises(ValueError, match=f"at least {size}x{size} pixels for {layer} of vgg16, got {size - 1}x9"):
            net(images(1, size - 1, 9))


def test_smallest_image_of_the_default_layers():
    with torch.device("meta"):
        assert (VGGFeatures().min_size, VGGFeatures("vgg19").min_size) == (2, 16)


def test_bad_arguments():
    with pytest.raises(ValueError, match="arch must be one of vgg16, vgg19, got 'vgg11'"):
        VGGFeatures("vgg11")
    with pytest.raises(ValueError, match=r"layer of vgg16 must be one of conv1_1, .*, pool5, got 'relu3_4'"):
        VGGFeatures(layer="relu3_4")
    with pytest.raises(ValueError, match="arch must be one of"):
        load_vgg_features("resnet18")
    net = VGGFeatures(layer="conv1_1")
    for bad in (images()[:, :1], images()[0], images().to(torch.complex64), images().int()):
        with pytest.raises(ValueError, match=r"images must be real with shape \(n, 3, rows, cols\), got"):
            net(bad)


@pytest.mark.parametrize("layer", ["relu1_2", None])
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_a_file(vgg16_features, vgg16_state, cache, tmp_path, layer, legacy):
    path = tmp_path / "weights.pth"
    # as torchvision's own files: with a classifier, and in the format of their time
    state = {**vgg16_state, "classifier.0.weight": torch.zeros(3, 3)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    for weights in (path, str(path)):
        net = load_vgg_features("vgg16", weights=weights, layer=layer)
        assert not net.training
        torch.testing.assert_close(net(images()), vgg16_features[: len(net.features)](normalized(images())))


def test_weights_of_the_cache(vgg16_state, cache):
    with pytest.raises(FileNotFoundError) as error:
        load_vgg_features("vgg16")
    hints = (
        f"put https://download.pytorch.org/models/{VGG16_FILE} at {cache / VGG16_FILE}",
        "weights='download'",
    )
    assert all(hint in str(error.value) for hint in hints)
    with pytest.raises(FileNotFoundError, match=r"vgg19-dcbb9e9d\.pth"):
        load_vgg_features("vgg19")
    torch.save(vgg16_state, cache / VGG16_FILE)
    for weights in (None, "download"):
        net = load_vgg_features("vgg16", weights=weights, layer="conv1_1")
        assert torch.equal(net.features[0].weight, vgg16_state["features.0.weight"])


def test_download_only_when_asked_for(vgg16_state, cache, monkeypatch):
    calls = []

    def download(url, target, hash_prefix, progress=True):
        calls.append((url.rsplit("/", 1)[1], hash_prefix))
        torch.save(vgg16_state, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    VGGFeatures()
    with pytest.raises(FileNotFoundError):
        load_vgg_features("vgg16")
    assert calls == []
    net = load_vgg_features("vgg16", weights="download")
    assert torch.equal(net.features[7].weight, vgg16_state["features.7.weight"])
    assert calls == [(VGG16_FILE, "397923af")]


@pytest.mark.parametrize("problem", [URLError("no route"), RuntimeError("invalid hash value"), TimeoutError()])
def test_a_download_that_fails_says_which_file_to_put_where(cache, monkeypatch, problem):
    def fail(*args, **kwargs):
        raise problem

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(OSError) as error:
        load_vgg_features("vgg16", weights="download")
    assert f"put https://download.pytorch.org/models/{VGG16_FILE} at {cache / VGG16_FILE}" in str(error.value)
    assert str(problem) in str(error.value)


def test_wrong_files(vgg16_state, tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match=r"no weights of vgg16 at .*weights\.pth"):
        load_vgg_features("vgg16", weights=path)
    for content in (b"", b"no weights", b"PK\x03\x04 broken", b"\x80\x02]q\x00."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pth must "):
            load_vgg_features("vgg16", weights=path)
    without = {name: tensor for name, tensor in vgg16_state.items() if name != "features.2.bias"}
    conv = torch.zeros(256, 256, 3, 3)
    wrong = [
        ([1, 2], "got a list that is no dict of tensors"),
        ({"state_dict": vgg16_state}, "got a dict that is no dict of tensors"),
        ({"conv1.weight": conv}, "missing features.0.bias, features.0.weight, features.2.bias, features.2.weight"),
        (without, "missing features.2.bias"),
        ({**vgg16_state, "features.16.weight": conv}, "got also features.16.weight"),  # as in vgg19
        ({**vgg16_state, "features.1.running_mean": conv}, "got also features.1.running_mean"),  # with batch norm
        (
            {**vgg16_state, "features.0.weight": conv},
            r"features.0.weight must have shape \(64, 3, 3, 3\), got \(256, 256",
        ),
        ({**vgg16_state, "classifier.0.weight": conv * torch.nan}, "values that are not finite"),
    ]
    for state, message in wrong:
        torch.save(state, path)
        with pytest.raises(ValueError, match=rf"weights\.pth must hold .* torchvision's vgg16.*{message}"):
            load_vgg_features("vgg16", weights=path)
