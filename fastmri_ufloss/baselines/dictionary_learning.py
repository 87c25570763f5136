"""Dictionary learning reconstruction (DLMRI): SENSE with patches that are sparse in a dictionary of their own."""

import math
import warnings

import torch
from torch import Tensor
from torch.nn.functional import fold

from fastmri_ufloss.checks import check
from fastmri_ufloss.mri import SenseNormalOperator, cg_sense, image_scale, sense_adjoint

__all__ = ["dlmri"]

# These numbers and the defaults of `dlmri` were chosen on two to four hearts (256 x 256, 8 coils, undersampled
# 5 times). Errors were 1% larger with 99 atoms, 5% larger with a sparsity of 5, and 12% larger with 12 iterations.
_FIRST_ERROR = 0.3  # of patches in the first iteration: about the size of aliasing at 5 times
_ANNEALED = 0.75  # the part of the iterations after which the error is lam
_LEARNED = (0.2, 0.6)  # the parts of the iterations after which the dictionary is learned
_NUM_SIGNALS = 3000  # to learn from at a time
_SEED = 0  # of their choice and order
_SPARSITY_WEIGHT = 2.0  # alpha of the learning, in units of the error
_MIN_SPARSITY_WEIGHT = 0.1  # codes of a smaller weight are dense: learning would take minutes
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
) -> Tensor:
    r"""Dictionary learning with coil maps: the image that fits the samples and has patches of few atoms.

    .. math:: \hat x = c \arg\min_{x, D, \alpha} \| U F S x - y / c \|_2^2
              + \frac{\nu}{p^2} \sum_j \| R_j x - m_j - D \alpha_j \|_2^2, \qquad \nu = 4 \lambda

    R_j takes the patch j of p x p pixels, of all that overlap, over the borders of the image too, and m_j is the mean
    of the patch. c is the `image_scale` of the sample's CG-SENSE image, so that ``lam`` means the same in every unit.
    Each iteration codes the patches (`sparse_approximation`), averages them to an image z, and solves
    :math:`(E^H E + \nu) x = E^H y / c + \nu z` by conjugate gradients.

    Args:
        masked_kspace, mask, sens_maps: as for `cg_sense`; one set of maps, of a norm of 1 or 0 over the coils.
        lam: error of a patch, root mean square, relative to the 95th percentile of the image, above 0.
        patch_size: p, from 2 to the number of rows and of columns.
        sparsity: the largest number of atoms of a patch, at most num_atoms.

    Returns:
        Image (batch, rows, cols), complex64, zero for empty k-space.

    Raises:
        ValueError, ImportError: if an argument does not fit, or scikit-learn is missing.

    Reference:
        S. Ravishankar and Y. Bresler, IEEE Trans Med Imaging 30:1028, 2011, with one coil, K-SVD and exact samples.
    """
    check(0 < lam < math.inf, "lam", "finite and above 0", lam)
    check(num_atoms >= 1, "num_atoms", "at least 1", num_atoms)
    check(num_iterations >= 1, "num_iterations", "at least 1", num_iterations)
    check(sens_maps.ndim == 5, "sens_maps", "of one set, (batch, coils, rows, cols, 2)", tuple(sens_maps.shape))
    cg_sense(masked_kspace, mask, sens_maps, num_iterations=1)  # checks the shapes of the whole batch
    size = tuple(sens_maps.shape[2:4])
    check(2 <= patch_size <= min(size), "patch_size", f"from 2 to the size of the image {size}", patch_size)
    atoms = cosine_dictionary(patch_size, num_atoms).to(masked_kspace.device)
    masks = mask.expand(len(masked_kspace), *mask.shape[1:])
    with torch.autocast(masked_kspace.device.type, enabled=False):
        samples = zip(masked_kspace[:, None].float(), masks[:, None], sens_maps[:, None].float(), strict=True)
        return torch.cat([_reconstruct(*sample, atoms, lam, sparsity, num_iterations) for sample in samples])


def _reconstruct(
    kspace: Tensor, mask: Tensor, maps: Tensor, atoms: Tensor, lam: float, sparsity: int, num_iterations: int
) -> Tensor:
    """The image of one sample, (1, rows, cols)."""
    start = cg_sense(kspace, mask, maps)
    scale = image_scale(start)
    image = start / scale
    normal = SenseNormalOperator(mask, maps)
    zero_filled = sense_adjoint(kspace, maps) / scale
    weight = _PRIOR_WEIGHT * lam
    learned = {int(part * num_iterations) for part in _LEARNED}
    for step in range(num_iterations):
        # down to lam geometrically, because a patch that is coded too well keeps its aliasing
        done = step / (_ANNEALED * num_iterations)
        error = max(lam, _FIRST_ERROR * (lam / _FIRST_ERROR) ** done)
        if step in learned:
            atoms = _learn(image[0], atoms, error)
        right = zero_filled + weight * _approximate(image[0], atoms, error, sparsity)
        image = normal.solve(right, weight, x0=image, num_iterations=_CG_ITERATIONS)
    return image * scale


def _patches(image: Tensor, patch_size: int, first: int, last: int) -> Tensor:
    """The patches that begin in some rows of an image, (n, 2, patch_size**2), of a periodic image."""
    rows, cols = image.shape
    down = torch.arange(first, last + patch_size - 1, device=image.device) % rows
    along = torch.arange(cols + patch_size - 1, device=image.device) % cols
    windows = torch.view_as_real(image[down[:, None], along]).unfold(0, patch_size, 1).unfold(1, patch_size, 1)
    return windows.reshape(-1, 2, patch_size**2)


def _learn(image: Tensor, atoms: Tensor, error: float) -> Tensor:
    """A dictionary for the patches whose means do not suffice."""
    length = atoms.shape[1]
    signals = _patches(image, math.isqrt(length), 0, len(image)).reshape(-1, length)
    signals = signals - signals.mean(dim=1, keepdim=True)
    signals = signals[signals.square().sum(dim=1) > error**2 * length / 2]  # half of the error is for the other part
    chosen = torch.randperm(len(signals), generator=torch.Generator().manual_seed(_SEED))[:_NUM_SIGNALS]
    if len(chosen) < len(atoms):
        return atoms
    alpha = max(_SPARSITY_WEIGHT * error, _MIN_SPARSITY_WEIGHT)
    return learn_dictionary(signals[chosen.to(signals.device)], atoms, alpha=alpha)


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


def sparse_approximation(signals: Tensor, atoms: Tensor, *, sparsity: int, tolerance: float) -> Tensor:
    r"""Approximate signals (n, channels, length) by a few atoms of norm 1, with orthogonal matching pursuit.

    The atom with the largest correlation with the rest of the signal is added, and the signal is projected on all its
    atoms, until :math:`\| s_i - \alpha_i D \|_2^2 \le tolerance` over all channels, which share their atoms, or
    :math:`\| \alpha_i \|_0 = sparsity`. ValueError if sparsity is out of range.

    References:
        Y. C. Pati et al., Asilomar Conf Signals 1993; J. A. Tropp et al., Signal Processing 86:572, 2006 (channels).
    """
    # all signals take a step at once; scikit-learn's pursuit is a loop over signals of one channel
    check(1 <= sparsity <= len(atoms), "sparsity", f"from 1 to the number of atoms ({len(atoms)})", sparsity)
    residuals = signals.clone()
    active = (signals.square().sum(dim=(1, 2)) > tolerance).nonzero()[:, 0]
    residual = signals[active]
    basis: list[Tensor] = []  # of each active signal, orthonormal; an entry is (active, length)
    for step in range(sparsity):
        best = (residual @ atoms.T).square().sum(dim=1).argmax(dim=1)
        direction = _orthogonal_part(atoms[best], basis)
        residual = residual - (residual @ direction[..., None]) * direction[:, None]
        residuals[active] = residual
        if step == sparsity - 1:
            break
        remaining = residual.square().sum(dim=(1, 2)) > tolerance
        active, residual = active[remaining], residual[remaining]
        basis = [vectors[remaining] for vectors in (*basis, direction)]
    return signals - residuals


def _orthogonal_part(atoms: Tensor, basis: list[Tensor]) -> Tensor:
    """The part of each signal's atom that its basis lacks, of norm 1, or 0 where there is none."""
    for vectors in basis:
        atoms = atoms - (atoms * vectors).sum(dim=1, keepdim=True) * vectors
    norm = atoms.norm(dim=1, keepdim=True)
    # an atom may come again where the error cannot become smaller: its part is rounding only
    return torch.where(norm > 1e-4, atoms / norm.clamp(min=1e-4), 0)


def cosine_dictionary(patch_size: int, num_atoms: int) -> Tensor:
    r"""Products of two cosines, the constant one left out, from the lowest frequencies on: atoms of square patches.

    .. math:: d_{kl}(i, j) \propto \cos(\pi k (i + 1/2) / n) \cos(\pi l (j + 1/2) / n)

    with :math:`n` the smallest number that gives enough atoms and is not below ``patch_size``. The result is
    (num_atoms, patch_size**2), each atom with a mean of 0 and a norm of 1.
    """
    count = max(patch_size, math.isqrt(num_atoms) + 1)
    frequency = torch.arange(count, dtype=torch.float64)
    waves = torch.cos(torch.pi * frequency[:, None] * (torch.arange(patch_size) + 0.5) / count)
    atoms = torch.einsum("ki,lj->klij", waves, waves).reshape(count**2, -1)
    order = (frequency[:, None] + frequency).flatten().argsort(stable=True)[1 : num_atoms + 1]
    atoms = atoms[order] - atoms[order].mean(dim=1, keepdim=True)
    return (atoms / atoms.norm(dim=1, keepdim=True)).float()


def learn_dictionary(signals: Tensor, start: Tensor, *, alpha: float) -> Tensor:
    r"""A dictionary for given signals, learned in one pass by ``sklearn.decomposition.MiniBatchDictionaryLearning``.

    .. math:: \min_{A, D} \tfrac{1}{2} \| S - A D \|_2^2 + \alpha \| A \|_1, \qquad \| d_k \|_2 = 1

    S is (n, length), D (num_atoms, length). ImportError if scikit-learn is missing.

    Reference:
        J. Mairal et al., Online dictionary learning for sparse coding, ICML 2009.
    """
    try:
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImportError(f"DLMRI needs scikit-learn ({error}): pip install 'fastmri-ufloss[classical]'") from error
    before = start.double().cpu()
    learner = MiniBatchDictionaryLearning(
        len(start),
        alpha=alpha,
        max_iter=1,
        fit_algorithm="lars",
        batch_size=256,
        dict_init=before.numpy(),
        random_state=_SEED,
        tol=0,  # no early stop
        max_no_improvement=None,
    )
    with warnings.catch_warnings():
        # similar atoms end the path of a signal early: its code is less good, and the dictionary only little
        warnings.simplefilter("ignore", ConvergenceWarning)
        atoms = torch.from_numpy(learner.fit(signals.double().cpu().numpy()).components_)
    norm = atoms.norm(dim=1, keepdim=True)
    # scikit-learn bounds the norms; an atom that became zero keeps its start
    return torch.where(norm > 0, atoms / norm, before).to(start)
