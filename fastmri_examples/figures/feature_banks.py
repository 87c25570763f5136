"""The bank of patches of a data folder, kept on disk volume by volume."""

import hashlib
from pathlib import Path

import torch
from figure_images import FigureImages, with_signal
from torch import Tensor
from tqdm import tqdm

from fastmri_ufloss.metrics.feature_bank import FeatureBank, read_features, share_out, write_features
from fastmri_ufloss.models import PatchFeatureNet


def build_bank(images: FigureImages, net: PatchFeatureNet, *, size: int, seed: int, cache_dir: Path) -> FeatureBank:
    """Patches at random places of all slices of a folder, one slice in memory at a time.

    What an earlier call has finished of the same volumes, network, size and seed is read from the cache.

    Args:
        images: the folder.
        net: the network.
        size: number of patches in all.
        seed: of the places.
        cache_dir: for a file of each volume.

    Raises:
        ValueError: if size is below 1.
    """
    if size < 1:
        raise ValueError(f"--bank_size must be at least 1, got {size}")
    counts = share_out(size, len(images))
    stamp = _stamp(net)
    device = next(net.parameters()).device
    parts, start = [], 0
    bar = tqdm(images.volumes, desc=f"Bank of {size} patches", unit="volume")
    for number, volume in enumerate(bar):
        of_slices = counts[start : start + volume.shape[0]]
        start += volume.shape[0]
        used = [(number, index) for index, count in enumerate(of_slices) if count]
        if not used:
            continue
        status = volume.path.stat()
        key = (volume.path.name, status.st_size, status.st_mtime_ns, images.challenge, stamp, seed, of_slices)
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        file = cache_dir / f"{volume.path.stem}-{digest}.npz"
        part = read_features(file, number)
        if part is None:
            write_features(
                file,
                net,
                ((place[1], image.to(device)) for place, image in with_signal(images, used)),
                {index: count for index, count in enumerate(of_slices) if count},
                volume_name=volume.path.name,
                seed=seed,
            )
            part = read_features(file, number)
        if part is not None:
            parts.append(part)
    return FeatureBank(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _stamp(net: PatchFeatureNet) -> str:
    """What the weights are, so that another network has files of its own."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
