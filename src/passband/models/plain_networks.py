"""Networks without shortcuts at the size of small images: LeNet, AlexNet, VGG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from jaxtyping import Float
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.metadata import own_cfg

Layer = tuple[int, int] | Literal["pool"]
"""A convolution of so many channels with a kernel of that side, or a 2×2 max pooling."""

_CFG = own_cfg(first_conv="features.0", classifier="fc")
# timm reads this while `register_model` runs, so it stands above the entry points.
default_cfgs = generate_default_cfgs(
    {name: _CFG for name in ("small_lenet.untrained", "small_alexnet.untrained", "small_vgg.untrained")}
)


class PlainNetwork(nn.Module):
    """Classify with convolutions, each followed by a ReLU, poolings, hidden linear layers and a linear head.

    Poolings round up, so that images of 28 pixels come through as many as images of 32. Kernels have odd sides.

    Args:
        layers: The convolutions, size-keeping and of stride 1, with their poolings.
        hidden: Width of each hidden linear layer.
        grid: Side to which the last features are averaged before the first linear layer.
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling to the grid, ``"avg"`` or ``"max"``.
        drop_rate: Dropout before each linear layer.

    Raises:
        PassbandError: when a layer has no channels, or a kernel an even side.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        hidden: Sequence[int],
        grid: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        convolutions = [layer for layer in layers if layer != "pool"]
        if min((*(channels for channels, _ in convolutions), *hidden)) < 1:
            raise PassbandError("every layer needs a channel: choose a width of at least 1")
        if any(side % 2 == 0 for _, side in convolutions):
            raise PassbandError("convolutions that keep the side need odd kernels, such as kernel=5")
        self.num_classes, self.in_chans, self.grid = num_classes, in_chans, grid
        made: list[nn.Module] = []
        self.feature_info: list[dict[str, Any]] = []
        channels, reduction = in_chans, 1
        for layer in layers:
            if layer == "pool":
                self.feature_info.append(
                    {"num_chs": channels, "reduction": reduction, "module": f"features.{len(made) - 1}"}
                )
                made.append(nn.MaxPool2d(2, ceil_mode=True))
                reduction *= 2
            else:
                made += [nn.Conv2d(channels, layer[0], layer[1], padding=layer[1] // 2), nn.ReLU()]
                channels = layer[0]
        self.features = nn.Sequential(*made)
        self.global_pool = self._pool(global_pool)
        self.drop = nn.Dropout(drop_rate)
        sides = [channels * grid**2, *hidden]
        self.hidden = nn.Sequential(
            *(
                module
                for inputs, outputs in pairwise(sides)
                for module in (nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(drop_rate))
            )
        )
        self.num_features, self.head_hidden_size = channels, sides[-1]
        self.fc = self._head()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _pool(self, kind: str) -> nn.Module:
        pool: nn.Module = SelectAdaptivePool2d(self.grid, kind, flatten=True)
        return pool

    def _head(self) -> nn.Module:
        return nn.Linear(self.head_hidden_size, self.num_classes) if self.num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the linear head."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = self._pool(global_pool)
        self.fc = self._head()

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.features(images)
        return features

    def forward_head(self, features: Float[Tensor, "batch c h w"], pre_logits: bool = False) -> Tensor:
        """Return logits [batch, classes], or the last hidden features [batch, features] for ``pre_logits``."""
        hidden: Tensor = self.hidden(self.drop(self.global_pool(features)))
        output: Tensor = hidden if pre_logits else self.fc(hidden)
        return output

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Tensor:
        """Return logits [batch, classes]."""
        return self.forward_head(self.forward_features(images))


def _build(name: str, pretrained: bool, out_indices: int, arguments: dict[str, Any]) -> nn.Module:
    cfg = {"flatten_sequential": True, "out_indices": tuple(range(out_indices))}
    model: nn.Module = build_model_with_cfg(PlainNetwork, name, pretrained, feature_cfg=cfg, **arguments)
    return model


@register_model  # type: ignore[untyped-decorator]
def small_lenet(
    pretrained: bool = False, *, width: int = 6, kernel: int = 5, drop_rate: float = 0.0, **arguments: Any
) -> nn.Module:
    """Build LeNet-5 through timm: two convolutions of 5×5, hidden layers of 120 and 84.

    **Source**: LeCun et al. 1998; high-frequency, "other tests", names it. **Differs**: ReLU and max pooling; both
    convolutions keep the side, and last features of 7×7 (at 28 pixels) or 8×8 are averaged to the original's 5×5.

    Args:
        pretrained: There are no weights.
        width: Channels of the first convolution; the second has 8/3 as many (16 of 6).
        kernel: Side of both kernels in pixels.
        drop_rate: Dropout before each linear layer.
        **arguments: Those that timm passes on.
    """
    layers: list[Layer] = [(width, kernel), "pool", (round(width * 8 / 3), kernel), "pool"]
    arguments |= dict(layers=layers, hidden=(120, 84), grid=5, drop_rate=drop_rate)
    return _build("small_lenet", pretrained, 2, arguments)


@register_model  # type: ignore[untyped-decorator]
def small_alexnet(pretrained: bool = False, *, width: int = 64, drop_rate: float = 0.0, **arguments: Any) -> nn.Module:
    """Build AlexNet through timm: five convolutions, 5×5 twice and 3×3 thrice, two hidden layers.

    **Source**: Krizhevsky et al. 2012 in the widths of its one-column form (64, 192, 384, 256, 256).
    **Differs**: stride 1 in the first convolution, 2×2 pooling and hidden layers of 16 times the width, as images of
    28 and 32 pixels leave no more.

    Args:
        pretrained: There are no weights.
        width: Channels of the first convolution; all others scale with it.
        drop_rate: Dropout before each linear layer.
        **arguments: Those that timm passes on.
    """
    layers: list[Layer] = [(width, 5), "pool", (3 * width, 5), "pool", (6 * width, 3), (4 * width, 3), (4 * width, 3)]
    arguments |= dict(layers=[*layers, "pool"], hidden=(16 * width,) * 2, grid=2, drop_rate=drop_rate)
    return _build("small_alexnet", pretrained, 3, arguments)


@register_model  # type: ignore[untyped-decorator]
def small_vgg(
    pretrained: bool = False, *, width: int = 64, depth: int = 11, drop_rate: float = 0.0, **arguments: Any
) -> nn.Module:
    """Build VGG-11 or VGG-16 through timm: 3×3 convolutions in five stages, one hidden layer.

    **Source**: Simonyan and Zisserman 2014, configurations A and D. **Differs**: a hidden layer of 8 times the width in
    place of two of 4,096, as is usual at 32 pixels; no batch norm, as in the original.

    Args:
        pretrained: There are no weights.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        depth: Layers with weights, 11 or 16.
        drop_rate: Dropout before each linear layer.
        **arguments: Those that timm passes on.

    Raises:
        PassbandError: for another depth.
    """
    repeats = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}.get(depth)
    if repeats is None:
        raise PassbandError(f"small_vgg has a depth of 11 or 16; got {depth}")
    layers: list[Layer] = []
    for factor, count in zip((1, 2, 4, 8, 8), repeats, strict=True):
        layers += [(factor * width, 3)] * count + ["pool"]
    arguments |= dict(layers=layers, hidden=(8 * width,), grid=1, drop_rate=drop_rate)
    return _build("small_vgg", pretrained, 5, arguments)
