"""Write the images that the feature networks of this package were trained on, as single-coil fastMRI volumes.

    python fastmri_examples/modl_ufloss/general_data.py --output_path DATA --sunnybrook FOLDER --phantoms FOLDER
    python fastmri_examples/modl_ufloss/pretrain.py --challenge singlecoil --data_path DATA --architecture narrow ...

All may be redistributed: the Sunnybrook cardiac data (CC0), heads and brains inside Python packages (MNI's template
in nilearn, MNI's own permission; the mean head of pydeface, MIT; slices of dipy, BSD; a scan of nibabel, MIT),
phantoms (MIT) and knees that are generated. Each image is there as it is and ``--copies`` times turned and
resampled, with a smooth random phase and some noise. The commands are in fastmri_ufloss/models/weights/README.md.
"""

import sys
import zlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from fastmri.data.transforms import to_tensor
from scipy.ndimage import affine_transform

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.mri import estimate_sens_maps, sens_reduce
from fastmri_ufloss.simulation.anatomy import CONTRASTS, draw_knee
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

# by which networks and losses are judged
HELD_OUT = ("SC-HF-I-40", "SC-HF-NI-36", "SC-HYP-40", "SC-N-40", "SC-HF-I-08", "SC-N-07")
VALIDATION = ("SC-HF-I-01", "SC-HF-NI-03", "SC-HYP-01", "SC-N-02")
# package, file in it, and the axes along which it is cut into slices
HEADS = (
    ("nilearn", "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz", (0, 1, 2)),
    ("pydeface", "data/mean_reg2mean.nii.gz", (0, 1, 2)),
    ("dipy", "data/files/S0_10slices.nii.gz", (2,)),
    ("dipy", "data/files/t1_coronal_slice.npy", (2,)),
    ("nibabel", "tests/data/example4d.nii.gz", (2,)),
)
EVERY = 8  # slices of a head
LEAST = 72  # rows and columns of an image
Named = Iterator[tuple[str, np.ndarray]]


def hearts(folder: Path) -> Named:
    """The subjects but for those held out, with magnitudes (slices, rows, cols)."""
    files = sorted(folder.glob("SC-*.npz"))
    if not files:
        raise FileNotFoundError(f"no SC-*.npz in {folder}: check --sunnybrook")
    for file in files:
        if file.stem not in HELD_OUT:
            yield file.stem, np.load(file, allow_pickle=False)["images"].astype(np.float32)


def heads() -> Named:
    """Slices of the volumes inside packages."""
    import nibabel

    for package, name, axes in HEADS:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no package {package}: pip install {package}")
        path = Path(spec.origin).parent / name
        if path.suffix == ".npy":
            volume = np.load(path, allow_pickle=False)[..., None]
        else:
            volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
        volume = volume.reshape(*volume.shape[:3], -1)[..., 0]
        for axis in axes:
            slices = np.moveaxis(volume, axis, 0)
            object_slices = slices[[np.mean(image > image.max() / 10) > 0.1 for image in slices]]
            step = EVERY if len(object_slices) > 2 * EVERY else 1
            yield f"{package}_{Path(name).name.split('.')[0]}_{axis}", object_slices[::step]


def phantoms(folder: Path) -> Named:
    """Coil-combined complex images of the k-space in ``*phantom*.npy``, (coils, rows, cols)."""
    files = sorted(folder.glob("*phantom*.npy"))
    if not files:
        raise FileNotFoundError(f"no *phantom*.npy in {folder}: check --phantoms")
    for file in files:
        kspace = to_tensor(np.load(file, allow_pickle=False))[None]
        image = torch.view_as_complex(sens_reduce(kspace, estimate_sens_maps(kspace, 24)))
        yield file.stem, image[0].numpy()


def knees(number: int) -> Named:
    """Generated knees."""
    for seed in range(number):
        contrast = list(CONTRASTS)[seed % len(CONTRASTS)]
        yield f"knee_{seed}", draw_knee((256, 256), num_slices=6, contrast=contrast, seed=1000 + seed)[0]


def turned(images: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """The images turned by any angle and resampled to 0.7 to 1.4 times their size."""
    generator = np.random.default_rng(seed)
    angle, zoom = generator.uniform(0, 2 * np.pi), generator.uniform(0.7, 1.4)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    shape = np.array(images.shape[1:])
    size = np.maximum(LEAST, np.round(shape * min(zoom, 1.0))).astype(int)
    offset = (shape - 1) / 2 - matrix @ ((size - 1) / 2)
    parts = [images.real, images.imag] if np.iscomplexobj(images) else [images]
    warped = [np.stack([affine_transform(i, matrix, offset, tuple(size), order=3) for i in part]) for part in parts]
    return warped[0] + 1j * warped[1] if len(parts) == 2 else np.maximum(warped[0], 0)


def main() -> None:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--output_path", type=Path, required=True, help="for singlecoil_train and singlecoil_val")
    parser.add_argument("--sunnybrook", type=Path, required=True, help="folder of SC-*.npz")
    parser.add_argument("--phantoms", type=Path, required=True, help="folder of *phantom*.npy, k-space of coils")
    parser.add_argument("--num_knees", type=int, default=12)
    parser.add_argument("--copies", type=int, default=1, help="of each image, turned and resampled")
    args = parser.parse_args()
    for source in (hearts(args.sunnybrook), heads(), phantoms(args.phantoms), knees(args.num_knees)):
        for name, images in source:
            split = "val" if name in VALIDATION else "train"
            for copy in range(1 if split == "val" else 1 + args.copies):
                path = args.output_path / f"singlecoil_{split}" / f"{name}_{copy}.h5"
                seed = [zlib.crc32(name.encode()), copy]
                if not path.is_file():
                    shown = turned(images, seed) if copy else images
                    scaled = shown / np.abs(shown).max()
                    kspace = simulate_kspace(scaled, num_coils=None, snr=40.0, seed=seed[0] + copy)
                    write_volume(path, kspace, patient_id=path.stem)
                    recipe.say(f"{path}: {scaled.shape}")


if __name__ == "__main__":
    recipe.run(main)
