"""The network that maps an image patch to a unit vector, and its files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.files import atomic_path, name_some
from fastmri_ufloss.models.checkpoints import check_weights, load_exactly, load_plain, load_safetensors
from fastmri_ufloss.mri.intensity import SCALE_RULE

__all__ = ["PRETRAINED", "PatchFeatureNet", "load_ufloss_checkpoint", "pretrained_feature_net"]

PRETRAINED = ("general-complex", "general-magnitude")  # which ship, see weights/README.md
_WEIGHTS = Path(__file__).parent / "weights"

Architecture = Literal["resnet18", "narrow"]

_FORMAT_VERSION = 2
_SETTINGS = {
    "format_version": int,
    "architecture": str,
    "in_chans": int,
    "num_features": int,
    "patch_size": int,
    "width": int,
    "scale_rule": str,
    "sha256": str,
    "training_data": str,
}
_OF_FILE = ("format_version", "scale_rule", "sha256")
_OF_VERSION_1 = {"format_version": _FORMAT_VERSION, "architecture": "resnet18", "width": 64, "sha256": ""}


class PatchFeatureNet(nn.Module):
    """A patch as a point on the unit sphere, v = f(p), |v| = 1.

    The image that the patch is taken from must have been divided by its `fastmri_ufloss.mri.intensity.image_scale`.

    Args:
        in_chans: 2 for the real and imaginary part of complex images, 1 for magnitudes.
        num_features: the length of v.
        patch_size: p, rows and columns of a patch, at least 32 for "resnet18" and 39 for "narrow".
        architecture: "resnet18", the paper's, with a linear layer to the features; or "narrow", a residual network
            of 7 convolutions without padding, which sees all patches of a grid in one pass over the image
            (`grid_features`): with the default loss in about a hundredth of the time.
        width: channels of the first layer of "narrow", whose last has four times as many; None: 32.
        training_data: what the weights were trained on, in words; stored with the weights.

    Raises:
        ValueError: if an argument is not as above, or a width is given for "resnet18".

    Wang et al., "High fidelity deep learning-based MRI reconstruction with instance-wise discriminative
    feature matching loss", MRM 2022.
    """

    def __init__(
        self,
        in_chans: int = 2,
        *,
        num_features: int = 128,
        patch_size: int = 60,
        architecture: Architecture = "resnet18",
        width: int | None = None,
        training_data: str = "",
    ) -> None:
        super().__init__()
        check(in_chans in (1, 2), "in_chans", "1 (magnitude) or 2 (real, imaginary)", in_chans)
        check_at_least_one(num_features=num_features, width=width)
        kinds = ("resnet18", "narrow")
        check(architecture in kinds, "architecture", "'resnet18' or 'narrow'", repr(architecture))
        is_narrow = architecture == "narrow"
        check(is_narrow or width in (None, 64), "width", "None for 'resnet18'", width)
        least = _NarrowResNet.field if is_narrow else 32  # by which ResNet-18 divides
        check(patch_size >= least, "patch_size", f"at least {least}", patch_size)
        self.in_chans = in_chans
        self.num_features = num_features
        self.patch_size = patch_size
        self.architecture = architecture
        self.width = width or (32 if is_narrow else 64)
        self.training_data = training_data
        self.network: nn.Module
        if is_narrow:
            self.network = _NarrowResNet(in_chans, num_features, self.width)
        else:
            self.network = resnet18(weights=None, num_classes=num_features)
            self.network.conv1 = nn.Conv2d(in_chans, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")

    @property
    def grid_step(self) -> int | None:
        """The distance of the patches whose features `grid_features` gives at once, None where it cannot."""
        return _NarrowResNet.step if isinstance(self.network, _NarrowResNet) else None

    def forward(self, patches: Tensor) -> Tensor:
        """Features (n, num_features), of unit l2 norm, at least float32.

        Patches are real (n, in_chans, patch_size, patch_size), of images at ``SCALE_RULE``; ValueError otherwise.
        """
        expected = (self.in_chans, self.patch_size, self.patch_size)
        fits = patches.ndim == 4 and tuple(patches.shape[1:]) == expected and not patches.is_complex()
        wanted = f"real with shape (n, {', '.join(map(str, expected))})"
        check(fits, "patches", wanted, f"{patches.dtype} {tuple(patches.shape)}")
        return _normalize(self.network(patches))

    def grid_features(self, images: Tensor, *, stride: int) -> Tensor:
        """Features of all patches on a grid, (n, patches, num_features), row by row: those of `forward`, to rounding.

        Images are real (n, in_chans, rows, cols), at ``SCALE_RULE``, and not smaller than a patch. The grid starts
        at the upper left corner; its stride is a multiple of ``grid_step``, ValueError otherwise.
        """
        return self.grid_layers(images, stride=stride)[-1]

    def grid_layers(self, images: Tensor, *, stride: int) -> list[Tensor]:
        """Unit vectors of inner layers at each of their pixels, (n, pixels, channels) each, then `grid_features`.

        The inner layers are the outputs of all blocks but the last. For the arguments and errors see `grid_features`.
        """
        if not isinstance(self.network, _NarrowResNet):
            raise ValueError(f"grid_features is for the architecture 'narrow', not {self.architecture!r}")
        step = self.network.step
        check(stride > 0 and stride % step == 0, "stride", f"a multiple of {step}", stride)
        layers = self.network.grid(images, self.patch_size, stride // step)
        return [_normalize(layer) for layer in layers]

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write the weights to a path that ends in .safetensors, the settings to .json beside it, each atomically.

        The settings have the hash of the weights; ``half`` writes weights of half precision.
        """
        path = Path(path)
        require(path.suffix == ".safetensors", "path must end in .safetensors", path)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        if half:
            weights = {
                name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()
            }
        with atomic_path(path) as temporary:
            save_file(weights, temporary)
            digest = _sha256(temporary)
        rules = {"format_version": _FORMAT_VERSION, "scale_rule": SCALE_RULE, "sha256": digest}
        settings = {name: rules[name] if name in rules else getattr(self, name) for name in _SETTINGS}
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, *, patch_size: int | None = None) -> "PatchFeatureNet":
        """The network that `save` wrote to a .safetensors file and the .json file beside it, on the CPU in eval mode.

        A name out of ``PRETRAINED`` is a network that ships. ``patch_size`` is another than that of the training, for
        the architecture "narrow", whose features are means over a patch. Raises FileNotFoundError if one of the two
        files is missing, ValueError if they are of another kind or do not fit, or the hash of the weights is not that
        of the settings.
        """
        path = feature_net_path(path)
        shipped = ", ".join(PRETRAINED)
        require(path.suffix == ".safetensors", f"path must end in .safetensors or be one of {shipped}", path)
        if not path.is_file():
            raise FileNotFoundError(f"no feature network at {path}; those that ship are {shipped}")
        settings = _read_settings(path.with_suffix(".json"))
        if settings["sha256"] and _sha256(path) != settings["sha256"]:
            raise ValueError(f"{path} must have the hash in {path.with_suffix('.json')}: one of the two was changed")
        if patch_size is not None and patch_size != settings["patch_size"]:
            fits, own = settings["architecture"] == "narrow", settings["patch_size"]
            check(fits, "patch_size", f"{own}, for which {path} was trained", patch_size)
            settings["patch_size"] = patch_size
        weights, expected = load_safetensors(path), f"{path} must hold the weights of a PatchFeatureNet"
        arguments = {name: settings[name] for name in _SETTINGS if name not in _OF_FILE}
        try:
            with torch.device("meta"):  # without memory: wrong settings may ask for any
                net = cls(**arguments)
        except (RuntimeError, TypeError, OverflowError, ValueError) as error:
            settings_path, reason = path.with_suffix(".json"), str(error).partition("\n")[0]
            raise ValueError(f"{settings_path} has settings that no network can have: {reason}") from error
        check_weights(net, weights, expected=expected)
        net = cls(**arguments)
        net.load_state_dict(weights)
        return net.eval()


def pretrained_feature_net(name: str, *, patch_size: int | None = None) -> PatchFeatureNet:
    """A feature network that ships with this package, ``"general-complex"`` or ``"general-magnitude"``.

    Frozen, on the CPU and in eval mode. What the networks were trained on, and their licence, is in
    ``fastmri_ufloss/models/weights/README.md``. ``patch_size`` is 60 if not given, at least 39. Raises ValueError for
    another name, or as `PatchFeatureNet.load`.
    """
    check(name in PRETRAINED, "name", f"one of {', '.join(PRETRAINED)}", repr(name))
    return PatchFeatureNet.load(name, patch_size=patch_size).requires_grad_(False)


def feature_net_path(name: str | Path) -> Path:
    """The file of a network that ships, by its name, or another path as it is."""
    return _WEIGHTS / f"{name}.safetensors" if str(name) in PRETRAINED else Path(name)


class _NarrowResNet(nn.Module):
    """Convolutions and batch norm without padding, the mean over the patch, and a linear layer.

    An output of the last convolution depends on ``field`` x ``field`` pixels, its neighbor's are ``step`` further.
    """

    step, field = 4, 39

    def __init__(self, in_chans: int, num_features: int, width: int) -> None:
        super().__init__()
        self.stem = _convolution(in_chans, width, 3, stride=2)
        self.blocks = nn.ModuleList(
            [_ValidBlock(width, width), _ValidBlock(width, 2 * width, stride=2), _ValidBlock(2 * width, 4 * width)]
        )
        self.fc = nn.Linear(4 * width, num_features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def convolve(self, images: Tensor) -> list[Tensor]:
        """The output of each block."""
        images, outputs = F.relu(self.stem(images)), []
        for block in self.blocks:
            images = block(images)
            outputs.append(images)
        return outputs

    def forward(self, patches: Tensor) -> Tensor:
        features: Tensor = self.fc(self.convolve(patches)[-1].mean(dim=(2, 3)))
        return features

    def grid(self, images: Tensor, patch_size: int, stride: int) -> list[Tensor]:
        """The outputs of the blocks but the last, (n, pixels, channels), and what `forward` gives for all patches of
        a grid, (n, patches, features), its stride in pixels of the last block."""
        window = (patch_size - self.field) // self.step + 1
        num_rows, num_cols = ((size - patch_size) // (self.step * stride) + 1 for size in images.shape[-2:])
        *inner, last = self.convolve(images)
        means = F.avg_pool2d(last, window, stride=stride)[:, :, :num_rows, :num_cols]
        return [layer.flatten(2).transpose(1, 2) for layer in inner] + [self.fc(means.flatten(2).transpose(1, 2))]


class _ValidBlock(nn.Module):
    """Two 3x3 convolutions without padding, beside the input cut to their size."""

    def __init__(self, in_chans: int, out_chans: int, *, stride: int = 1) -> None:
        super().__init__()
        first = _convolution(in_chans, out_chans, 3, stride=stride)
        self.convs = nn.Sequential(first, nn.ReLU(), _convolution(out_chans, out_chans, 3))
        self.stride = stride
        is_same = in_chans == out_chans and stride == 1
        self.shortcut = nn.Identity() if is_same else _convolution(in_chans, out_chans, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.convs(images)
        margin = 1 + self.stride  # pixels that the convolutions take on each side
        shortcut = self.shortcut(images[..., margin:, margin:])[..., : output.shape[-2], : output.shape[-1]]
        return F.relu(output + shortcut)


def _convolution(in_chans: int, out_chans: int, size: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_chans, out_chans, size, stride=stride, bias=False), nn.BatchNorm2d(out_chans))


def _normalize(features: Tensor) -> Tensor:
    # the norm is taken in full precision: under autocast the features come in half precision
    half = features.dtype in (torch.float16, torch.bfloat16)
    return F.normalize(features.float() if half else features, dim=-1)


def load_ufloss_checkpoint(path: str | Path, *, patch_size: int = 60) -> PatchFeatureNet:
    """A feature network trained with the code of the UFLoss paper (mikgroup/UFLoss), on the CPU and in eval mode.

    The file of ``torch.save`` is a state dict, or a dict that holds one as ``"state_dict"``, with the weights of a
    ResNet-18 under ``network.`` or without a prefix; the rest, such as the memory bank, is left behind. The file does
    not say ``patch_size``, in the paper 60 for 2D knees and 40 for 3D knees. Raises FileNotFoundError if there is no
    such file, ValueError if the file holds something other than tensors and plain values, or another network.
    """
    path = Path(path)
    checkpoint = load_plain(path)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else {}
    check(isinstance(state, Mapping), f"state_dict in {path}", "a dict of tensors", type(state).__name__)
    prefix = "network." if any(name.startswith("network.") for name in map(str, state)) else ""
    heads = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.", "fc.")
    weights = {
        f"network.{name.removeprefix(prefix)}": tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(prefix) and name.removeprefix(prefix).startswith(heads)
    }
    conv1, fc = weights.get("network.conv1.weight"), weights.get("network.fc.weight")
    if not isinstance(conv1, Tensor) or not isinstance(fc, Tensor) or conv1.ndim != 4 or fc.ndim != 2:
        names = name_some(sorted(map(str, state)), shown=4)
        raise ValueError(f"{path} must hold conv1.weight and fc.weight of a ResNet-18, got {names}")
    origin = f"released UFLoss checkpoint {path.name}"
    net = PatchFeatureNet(conv1.shape[1], num_features=fc.shape[0], patch_size=patch_size, training_data=origin)
    load_exactly(net, weights, expected=f"{path} must hold the weights of a PatchFeatureNet")
    return net.eval()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no settings of the feature network at {path}; save() writes them")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file, got: {error}") from error
    if isinstance(settings, dict) and settings.get("format_version") == 1:  # there was one architecture
        settings |= _OF_VERSION_1
    fits = isinstance(settings, dict) and {k: type(v) for k, v in settings.items()} == _SETTINGS
    require(fits, f"{path} must hold the settings {', '.join(_SETTINGS)}", settings)
    for name, expected in (("format_version", _FORMAT_VERSION), ("scale_rule", SCALE_RULE)):
        check(settings[name] == expected, f"{name} in {path}", repr(expected), repr(settings[name]))
    return settings
