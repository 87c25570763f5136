"""Trained networks as folders that can be handed on: weights, settings and a model card."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.export.model_folder import *

__getattr__, __all__ = lazy_names(__name__, {"model_folder": "export_model load_pretrained"})
