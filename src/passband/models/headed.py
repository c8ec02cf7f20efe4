"""What timm's users expect of a network that ends in timm's ``ClassifierHead``."""

from __future__ import annotations

from jaxtyping import Float
from timm.layers import ClassifierHead
from torch import Tensor, nn


class HeadedNetwork(nn.Module):
    """Classify features with a head: pooling, dropout, a linear layer; a network says what its features are.

    Attributes:
        head: Set by the network.
        num_classes: Outputs; 0 where the head is left off.
    """

    head: ClassifierHead
    num_classes: int

    def get_classifier(self) -> nn.Module:
        """Return the linear head."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        raise NotImplementedError

    def forward_head(self, features: Float[Tensor, "batch c h w"], pre_logits: bool = False) -> Tensor:
        """Return logits [batch, classes], or pooled features [batch, features] for ``pre_logits``."""
        output: Tensor = self.head(features, pre_logits=pre_logits)
        return output

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Tensor:
        """Return logits [batch, classes]."""
        return self.forward_head(self.forward_features(images))
