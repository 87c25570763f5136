"""Files of ``torch.save`` with plain values and tensors only, which cannot run code when they are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastmri_ufloss.checks import require
from fastmri_ufloss.files import name_some

__all__ = ["check_weights", "load_exactly", "load_plain", "load_safetensors", "read_checkpoint"]

_OLD_MODL = {"num_unrolls": 5, "denoiser": "unet", "chans": 64, "share_weights": True}


def load_plain(path: str | Path) -> Any:
    """The content of a file of ``torch.save``; FileNotFoundError, or ValueError for another kind of file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file, torch raises of many kinds
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"{path} must be a file of torch.save with plain values and tensors only, got: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error


def read_checkpoint(path: str | Path, *, prefix: str = "") -> dict[str, Any]:
    """A Lightning checkpoint with "state_dict" and "hyper_parameters", or a bare state dict as fastMRI publishes.

    Some names of a checkpoint's weights must start with ``prefix``, which is put before those of a bare state dict.
    Raises as `load_plain`, and ValueError if the file is no Lightning checkpoint, or one of another model.
    """
    content = load_plain(path)
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        content = {"state_dict": {f"{prefix}{name}": value for name, value in content.items()}}
    if not isinstance(content, Mapping) or "state_dict" not in content:
        raise ValueError(f"{path} is not a Lightning checkpoint: it has no 'state_dict'")
    for part, values in (("state_dict", Tensor), ("hyper_parameters", object)):
        given = content.get(part, {})
        fits = isinstance(given, Mapping) and all(isinstance(name, str) for name in given)
        require(fits, f"{path}: {part} must be a dictionary with names", type(given).__name__)
        for name, value in given.items():
            require(isinstance(value, values), f"{path}: {name} of {part} must be a tensor", type(value).__name__)
    names = list(content["state_dict"])
    if not any(name.startswith(prefix) for name in names):
        raise ValueError(
            f"{path} is a checkpoint of another model: its weights are named {names[:3]} ..., not '{prefix}...'"
        )
    settings = dict(content.get("hyper_parameters", {}))
    if "model" in settings:  # before version 0.2 the network's settings were apart, and MoDL had other defaults
        settings.update(_OLD_MODL if any(name.startswith("modl.") for name in names) else {})
        settings.update(settings.pop("model") or {})
    return {**content, "hyper_parameters": settings}


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError for another kind of file."""
    try:
        return load_file(path)
    except OSError:
        raise
    except Exception as error:  # safetensors' own, and what torch says of types and sizes
        raise ValueError(f"{path} must be a safetensors file, got: {error}") from error


def load_exactly(network: nn.Module, weights: Mapping[str, Any], *, expected: str) -> None:
    """Load weights of the names and shapes that the network has; others raise ValueError, ``expected`` first."""
    check_weights(network, weights, expected=expected)
    network.load_state_dict(weights)


def check_weights(network: nn.Module, weights: Mapping[str, Any], *, expected: str) -> None:
    """Raise as `load_exactly`; the network may be one without memory, on torch's device "meta"."""
    wanted = network.state_dict()
    for problem, names in (("missing", wanted.keys() - weights.keys()), ("got also", weights.keys() - wanted.keys())):
        if names:
            raise ValueError(f"{expected}, {problem} {name_some(sorted(names), shown=4)}")
    for name, tensor in wanted.items():
        given = weights[name]
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        require(shape == tuple(tensor.shape), f"{expected}: {name} must have shape {tuple(tensor.shape)}", shape)
