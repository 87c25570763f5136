"""A network that a loss or a metric uses and never changes."""

from typing import Any, TypeVar

from torch import nn

__all__ = ["FrozenNetworkLoss"]

_Loss = TypeVar("_Loss", bound="FrozenNetworkLoss")


class FrozenNetworkLoss(nn.Module):
    """A module with a network that is handed in, used and never changed.

    The network is frozen, always in eval mode, and no part of this module's state dict: what is trained with the
    loss is saved without it, and such a state dict loads strictly. Weights of a network in a state dict are ignored.

    Args:
        name: the attribute under which the network is held.
        network: it is frozen and set to eval mode here.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.add_module(name, network.requires_grad_(False).eval())
        self._network_name = name
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_in)

    def train(self: _Loss, mode: bool = True) -> _Loss:
        """Set the mode of this module; the network stays in eval mode."""
        super().train(mode)
        self.get_submodule(self._network_name).eval()
        return self


def _leave_out(module: Any, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    network = f"{prefix}{module._network_name}."
    for name in [name for name in state_dict if name.startswith(network)]:
        del state_dict[name]


def _put_in(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """The weights that the network has, so that it loads these."""
    _leave_out(module, state_dict, prefix, None)
    network = module.get_submodule(module._network_name)
    state_dict.update(network.state_dict(prefix=f"{prefix}{module._network_name}.", keep_vars=True))
