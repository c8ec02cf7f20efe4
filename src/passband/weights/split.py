"""Hold some rows of a parameter still: what is frozen is a buffer, what learns is a smaller parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passband.core.errors import PassbandError


class Split(nn.Module):
    """Make a whole parameter from its learned rows and its frozen ones (a parametrization).

    Args:
        learned: One boolean per row of the whole parameter.
    """

    frozen: Tensor
    order: Tensor
    learned_rows: Tensor
    frozen_rows: Tensor

    def __init__(self, learned: Tensor) -> None:
        super().__init__()
        learned_rows, frozen_rows = learned.nonzero().flatten(), (~learned).nonzero().flatten()
        self.register_buffer("learned_rows", learned_rows, persistent=False)
        self.register_buffer("frozen_rows", frozen_rows, persistent=False)
        self.register_buffer("order", torch.cat([learned_rows, frozen_rows]).argsort(), persistent=False)
        self.register_buffer("frozen", torch.empty(0))

    def forward(self, learned: Tensor) -> Tensor:
        """Return all rows in their places."""
        return torch.cat([learned, self.frozen])[self.order]

    def right_inverse(self, whole: Tensor) -> Tensor:
        """Keep the frozen rows of ``whole`` and return the learned ones."""
        self.frozen = whole.detach()[self.frozen_rows].clone()
        return whole.detach()[self.learned_rows].clone()


def install(owner: nn.Module, leaf: str, learned: Tensor, name: str) -> int:
    """Split ``owner``'s parameter ``leaf`` into learned and frozen rows.

    Args:
        owner: The module that has the parameter.
        leaf: The parameter's name in it.
        learned: One boolean per row.
        name: The parameter's full name, for the error.

    Returns:
        Number of values that learn.

    Raises:
        PassbandError: when the parameter has a parametrization of another kind.
    """
    if parametrize.is_parametrized(owner, leaf):
        raise PassbandError(
            f"'{name}' is computed from other weights and cannot be split into query, key and value: "
            "take attention='whole' or give it one role with roles={...}"
        )
    device = getattr(owner, leaf).device
    parametrize.register_parametrization(owner, leaf, Split(learned.to(device)))
    return int(owner.parametrizations[leaf].original.numel())  # type: ignore[index,union-attr]


def remove(model: nn.Module) -> None:
    """Put every split parameter of ``model`` back together."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            chains = dict(module.parametrizations.items())  # type: ignore[union-attr,operator]
            for leaf, chain in chains.items():
                if any(isinstance(step, Split) for step in chain):
                    parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
