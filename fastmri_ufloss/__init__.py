"""MoDL and UFLoss for fastMRI: the names that most users need.

The rooms are imported by name: ``fastmri_ufloss.models``, ``.losses``, ``.mri``, ``.data``, ``.metrics``,
``.pl_modules``, and the leaves ``.simulation``, ``.convert``, ``.baselines``, ``.report``,
``.export``.
"""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.losses import UFLoss, make_loss
    from fastmri_ufloss.models import MoDL, PatchFeatureNet, load_ufloss_checkpoint, pretrained_feature_net
    from fastmri_ufloss.mri import cg_sense, conjugate_gradient, estimate_sens_maps, sens_expand, sens_reduce

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "losses": "UFLoss make_loss",
        "models": "MoDL PatchFeatureNet load_ufloss_checkpoint pretrained_feature_net",
        "mri": "cg_sense conjugate_gradient estimate_sens_maps sens_expand sens_reduce",
    },
)
