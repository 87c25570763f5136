"""The feature maps of torchvision's VGG, and its ImageNet weights."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.models.checkpoints import load_exactly, load_plain

__all__ = ["VGGFeatures", "load_vgg_features"]

Arch = Literal["vgg16", "vgg19"]

_DEFAULT_LAYERS = {"vgg16": "relu2_2", "vgg19": "relu5_4"}


class VGGFeatures(nn.Module):
    """The layers of torchvision's VGG from the image to a named layer, with the names of its state dict.

    The weights are random; `load_vgg_features` gives trained weights. The last layer is named by conv, relu or pool,
    the block from 1 to 5, and but for pool the number within the block, as in "relu2_2". None: relu2_2 of vgg16, the
    layer of the UFLoss paper's comparison, and relu5_4 of vgg19, that of the refinement paper. Another arch or layer
    raises ValueError. ``min_size`` is the fewest rows and columns of an image.

    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: Arch = "vgg16", *, layer: str | None = None) -> None:
        super().__init__()
        check(arch in _DEFAULT_LAYERS, "arch", f"one of {', '.join(_DEFAULT_LAYERS)}", repr(arch))
        features = _torchvision_features(arch)
        names = _layer_names(features)
        layer = _DEFAULT_LAYERS[arch] if layer is None else layer
        check(layer in names, f"layer of {arch}", f"one of {', '.join(names)}", repr(layer))
        names = names[: names.index(layer) + 1]
        self.arch = arch
        self.layer = layer
        self.min_size = 2 ** sum(name.startswith("pool") for name in names)
        self.features = features[: len(names)].to_empty(device=torch.get_default_device())
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()  # torch draws twice for each new VGG
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.ReLU):
                module.inplace = False  # the layer before it may be the one asked for
        # not in the state dict, which has torchvision's names only
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps (n, channels, rows', cols') of images (n, 3, rows, cols), red, green and blue in 0 .. 1.

        Another shape or kind, or less than ``min_size`` rows or columns, raises ValueError.
        """
        fits = images.ndim == 4 and images.shape[1] == 3 and images.is_floating_point()
        got = f"{images.dtype} {tuple(images.shape)}"
        check(fits, "images", "real with shape (n, 3, rows, cols)", got)
        rows, cols = images.shape[2:]
        demand = f"images must have at least {self.min_size}x{self.min_size} pixels for {self.layer} of {self.arch}"
        require(min(rows, cols) >= self.min_size, demand, f"{rows}x{cols}")
        features: Tensor = self.features((images - self.mean) / self.std)
        return features


def load_vgg_features(
    arch: Arch, *, weights: str | Path | Literal["download"] | None = None, layer: str | None = None
) -> VGGFeatures:
    """A `VGGFeatures` with torchvision's weights of ImageNet (IMAGENET1K_V1), on the CPU and in eval mode.

    The weights are those of a file with the state dict of torchvision's network, whole or with its ``features.*``
    only; with None of the file in torchvision's cache; or with "download" of that file, which torchvision downloads
    (0.5 GB) if it is not there. Raises OSError if there is no such file or the download fails, ValueError if the file
    holds something else, or as `VGGFeatures`.
    """
    net = VGGFeatures(arch, layer=layer)
    # IMAGENET1K_FEATURES of vgg16 is another network, for images that are normalized in another way
    published = get_model_weights(arch).IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[1]
    path = cached if weights in (None, "download") else Path(str(weights))
    remedy = (
        f"put {published.url} at {cached}, or give the file as weights, or let torchvision download it with "
        "weights='download'"
    )
    if weights == "download":
        try:
            state = published.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
        except (OSError, HTTPException, RuntimeError, UnpicklingError, EOFError) as error:
            raise OSError(f"no weights of {arch} from {published.url}, got: {error}; {remedy}") from error
    elif path.is_file():
        state = load_plain(path)
    elif weights is None:
        raise FileNotFoundError(f"{arch} needs weights trained on ImageNet, but there is no {path}: {remedy}")
    else:
        raise FileNotFoundError(f"no weights of {arch} at {path}")
    _load_weights(net, state, path)
    return net.eval()


def _torchvision_features(arch: Arch) -> nn.Sequential:
    """All layers before the classifier, without weights."""
    with torch.device("meta"):  # the classifier would take 0.5 GB
        features: nn.Sequential = get_model(arch, weights=None, init_weights=False).features
    return features


def _layer_names(features: nn.Sequential) -> list[str]:
    """conv1_1, relu1_1, conv1_2, ..., pool5."""
    names: list[str] = []
    block, place = 1, 0
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            names.append(f"pool{block}")
            block, place = block + 1, 0
        else:
            place += isinstance(layer, nn.Conv2d)
            names.append(f"{'conv' if isinstance(layer, nn.Conv2d) else 'relu'}{block}_{place}")
    return names


def _load_weights(net: VGGFeatures, state: Any, path: Path) -> None:
    expected = f"{path} must hold the state dict of torchvision's {net.arch}, whole or its features.* only"
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{expected}, got a {type(state).__name__} that is no dict of tensors")
    # the first layers of all VGGs are alike: what comes later tells them apart
    later = _torchvision_features(net.arch).state_dict(prefix="features.").keys() - net.state_dict().keys()
    features = {name: state[name] for name in state if str(name).startswith("features.") and name not in later}
    load_exactly(net, features, expected=expected)
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        # IMAGENET1K_FEATURES, with the same names and shapes, has nan where it has no weights
        raise ValueError(f"{expected} of IMAGENET1K_V1, got values that are not finite")
