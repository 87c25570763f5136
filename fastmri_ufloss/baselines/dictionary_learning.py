"""Dictionary learning reconstruction (DLMRI): SENSE with patches that are sparse in a dictionary of their own."""

import math

import torch
from torch import Tensor
from torch.nn.functional import fold

from fastmri_ufloss.baselines.sparse_coding import cosine_dictionary, learn_dictionary, sparse_approximation
from fastmri_ufloss.mri import cg_sense, image_scale, sens_reduce, sense_normal_operator
from fastmri_ufloss.mri.conjugate_gradient import conjugate_gradient

__all__ = ["dlmri"]

_FIRST_ERROR = 0.3  # of patches in the first iteration: about the size of aliasing at 5 times
_ANNEALED = 0.75  # the part of the iterations after which the error is lam
_LEARNED = (0.2, 0.6)  # the parts of the iterations after which the dictionary is learned
_NUM_SIGNALS = 3000  # to learn from at a time
_SPARSITY_WEIGHT = 2.0  # alpha of the learning, in units of the error
_MIN_SPARSITY_WEIGHT = 0.1  # below it codes are dense: learning would take minutes
_PRIOR_WEIGHT = 4.0  # nu, in units of lam
_CG_ITERATIONS = 4  # in each iteration, from the image of the one before
_CHUNK = 4096  # patches that are coded at a time: few enough for the cache of a processor


@torch.no_grad()
def dlmri(
    masked_kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor,
    *,
    lam: float = 0.035,
    patch_size: int = 6,
    num_atoms: int = 143,
    sparsity: int = 10,
    num_iterations: int = 30,
    seed: int = 0,
) -> Tensor:
    r"""Dictionary learning with coil maps: the image that fits the samples and has patches of few atoms.

    .. math:: \hat x = c \arg\min_{x, D, \alpha} \| U F S x - y / c \|_2^2
              + \frac{\nu}{p^2} \sum_j \| R_j x - m_j - D \alpha_j \|_2^2

    R_j takes the patch j of p x p pixels, of all that overlap, over the borders of the image too, and m_j is its
    mean. c is the `image_scale` of the sample's CG-SENSE image, the start, so that ``lam`` means the same in every
    unit. Each iteration codes the patches by orthogonal matching pursuit, with atoms until the error of a patch,
    its root mean square over the pixels, is at most ``lam`` (see `sparse_approximation`), averages them to an image
    z, and solves

    .. math:: (E^H E + \nu) x = E^H y / c + \nu z, \qquad \nu = 4 \lambda

    by conjugate gradients. As in the paper, both the error of the patches and the weight of the prior against the
    samples follow one level of noise, here ``lam``.

    In the first three quarters of the iterations the error falls from 0.3 to ``lam`` geometrically, because a patch
    that is coded too well keeps its aliasing. The atoms are cosines first. After a fifth and three fifths of the
    iterations they are learned (`learn_dictionary`), from patches that their mean does not suffice for, real and
    imaginary parts alike: atoms are real, because phase varies little within a patch and is left to complex
    coefficients, and one set serves any phase.

    Sample by sample, in single precision, without gradients; random is only which patches are learned from.

    Args:
        masked_kspace: (batch, coils, rows, cols, 2), of any unit and size.
        mask: (batch, 1, 1 or rows, cols, 1), not zero where a sample was acquired. A sample whose value is
            zero counts as acquired.
        sens_maps: (batch, coils, rows, cols, 2), with a norm of 1 or 0 over the coils.
        lam: the error that a patch may have, relative to the 95th percentile of the image, above 0. The larger it
            is, the stronger the dictionary and the weaker the samples. The default, and those of the other options,
            were chosen on two to four slices of as many subjects, cardiac images of 256 x 256 with 8 simulated coils
            and noise, undersampled 5 times with masks of random columns. The best value depends on noise and
            sampling; to compare fairly, search it (`search_weight`).
        patch_size: p, from 2 to the number of rows and of columns.
        num_atoms: of the dictionary, at least 1. 143 instead of 99 made errors 1% smaller.
        sparsity: the largest number of atoms of a patch, at most num_atoms. 10 instead of 5 made errors 5% smaller.
        num_iterations: at least 1. 30 instead of 12 made errors 12% smaller.
        seed: of the choice of patches and their order, from 0 to 2**32 - 1.

    Returns:
        Complex image (batch, rows, cols), complex64, on the device and in the unit of masked_kspace. Zero for
        empty k-space.

    Raises:
        ValueError: if the shapes do not belong together or an option is out of range.
        ImportError: if scikit-learn is missing.

    Reference:
        S. Ravishankar and Y. Bresler, MR image reconstruction from highly undersampled k-space data by dictionary
        learning, IEEE Trans Med Imaging 30:1028-1041, 2011, with one coil, K-SVD and exact samples.
    """
    _check_options(lam, num_atoms, sparsity, num_iterations, seed)
    cg_sense(masked_kspace, mask, sens_maps, num_iterations=1)  # it checks the shapes of the whole batch
    if not 2 <= patch_size <= min(sens_maps.shape[2:4]):
        raise ValueError(
            f"patch_size must be from 2 to the size of the image {tuple(sens_maps.shape[2:4])}, got {patch_size}"
        )
    atoms = cosine_dictionary(patch_size, num_atoms).to(masked_kspace.device)
    masks = mask.expand(len(masked_kspace), *mask.shape[1:])
    with torch.autocast(masked_kspace.device.type, enabled=False):
        images = [
            _reconstruct(
                kspace[None].float(), own[None], maps[None].float(), atoms, lam, sparsity, num_iterations, seed
            )
            for kspace, own, maps in zip(masked_kspace, masks, sens_maps, strict=True)
        ]
    return torch.cat(images)


def _check_options(lam: float, num_atoms: int, sparsity: int, num_iterations: int, seed: int) -> None:
    if not 0 < lam < float("inf"):
        raise ValueError(f"lam must be finite and above 0, got {lam}")
    if num_atoms < 1:
        raise ValueError(f"num_atoms must be at least 1, got {num_atoms}")
    if not 1 <= sparsity <= num_atoms:
        raise ValueError(f"sparsity must be from 1 to num_atoms ({num_atoms}), got {sparsity}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}")


def _reconstruct(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    atoms: Tensor,
    lam: float,
    sparsity: int,
    num_iterations: int,
    seed: int,
) -> Tensor:
    """The image of one sample, (1, rows, cols)."""
    start = cg_sense(kspace, mask, maps)
    scale = image_scale(start)
    image = start / scale
    normal = sense_normal_operator(mask, maps)
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0] / scale
    weight = _PRIOR_WEIGHT * lam
    learned = {int(part * num_iterations) for part in _LEARNED}
    for step in range(num_iterations):
        done = step / (_ANNEALED * num_iterations)
        error = max(lam, _FIRST_ERROR * (lam / _FIRST_ERROR) ** done)
        if step in learned:
            atoms = _learn(image[0], atoms, error, seed)
        prior = _approximate(image[0], atoms, error, sparsity)
        image = conjugate_gradient(
            lambda x: normal(x) + weight * x,
            zero_filled + weight * prior,
            x0=image,
            num_iterations=_CG_ITERATIONS,
        )
    return image * scale


def _patches(image: Tensor, patch_size: int, first: int, last: int) -> Tensor:
    """The patches that begin in some rows of an image, (n, 2, patch_size**2), as if it went on periodically."""
    rows, cols = image.shape
    down = torch.arange(first, last + patch_size - 1, device=image.device) % rows
    along = torch.arange(cols + patch_size - 1, device=image.device) % cols
    windows = torch.view_as_real(image[down[:, None], along]).unfold(0, patch_size, 1).unfold(1, patch_size, 1)
    return windows.reshape(-1, 2, patch_size**2)


def _learn(image: Tensor, atoms: Tensor, error: float, seed: int) -> Tensor:
    """A dictionary for the patches whose means do not suffice."""
    length = atoms.shape[1]
    signals = _patches(image, math.isqrt(length), 0, len(image)).reshape(-1, length)
    signals = signals - signals.mean(dim=1, keepdim=True)
    signals = signals[signals.square().sum(dim=1) > error**2 * length / 2]  # half of it is for the other part
    chosen = torch.randperm(len(signals), generator=torch.Generator().manual_seed(seed))[:_NUM_SIGNALS]
    if len(chosen) < len(atoms):
        return atoms
    alpha = max(_SPARSITY_WEIGHT * error, _MIN_SPARSITY_WEIGHT)
    return learn_dictionary(signals[chosen.to(signals.device)], atoms, alpha=alpha, seed=seed)


def _approximate(image: Tensor, atoms: Tensor, error: float, sparsity: int) -> Tensor:
    """The mean of the sparse approximations of all patches, (1, rows, cols)."""
    length = atoms.shape[1]
    patch_size = math.isqrt(length)
    rows, cols = image.shape
    border = patch_size - 1
    total = torch.zeros(2, rows + border, cols + border, device=image.device)
    step = max(1, _CHUNK // cols)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        patches = _patches(image, patch_size, first, last)
        means = patches.mean(dim=2, keepdim=True)
        coded = means + sparse_approximation(patches - means, atoms, sparsity=sparsity, tolerance=error**2 * length)
        shape = (last - first + border, cols + border)
        total[:, first : last + border] += fold(coded.flatten(1).T, shape, patch_size)
    # what lies beyond the borders belongs to the other side
    total[:, :border] += total[:, rows:]
    total[..., :border] += total[..., cols:]
    return torch.view_as_complex(total[:, :rows, :cols].permute(1, 2, 0).contiguous())[None] / length
