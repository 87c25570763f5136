"""What every loss that owns a network does with it."""

from typing import Any, TypeVar

from torch import nn

__all__ = ["FrozenNetworkLoss"]

_Loss = TypeVar("_Loss", bound="FrozenNetworkLoss")


class FrozenNetworkLoss(nn.Module):
    """A loss with a network that is handed in, used and never changed.

    The network is frozen, always in eval mode, and no part of this module's state dict: what is trained
    with the loss is saved without it, and such a state dict loads strictly. Weights of a network in a state
    dict are ignored; the network is the one handed in.

    Args:
        name: the attribute under which the loss holds the network.
        network: the network. It is frozen and set to eval mode here.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.add_module(name, network.requires_grad_(False).eval())
        self._network_name = name

    def train(self: _Loss, mode: bool = True) -> _Loss:
        """Set the mode of this module; the network stays in eval mode."""
        super().train(mode)
        self._network.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The state dict without the network."""
        state = super().state_dict(*args, **kwargs)
        prefix = f"{kwargs.get('prefix', args[1] if len(args) > 1 else '')}{self._network_name}."
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # state_dict is this call's own dict, from which the network loads next: it finds itself there
        network_prefix = f"{prefix}{self._network_name}."
        for name in [name for name in state_dict if name.startswith(network_prefix)]:
            del state_dict[name]
        state_dict.update(self._network.state_dict(prefix=network_prefix, keep_vars=True))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def _network(self) -> nn.Module:
        return self.get_submodule(self._network_name)
