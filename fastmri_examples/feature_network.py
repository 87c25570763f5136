"""The feature network of UFLoss in the scripts of the figures."""

from recipe import load_feature_net as load

__all__ = ["load"]
