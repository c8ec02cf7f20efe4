"""The post-activation CIFAR ResNet of adversarial-focus: a skip around every convolution."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.layers import parameter_free_shortcut
from passband.models.metadata import own_cfg

Activation = Literal["hardtanh", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"hardtanh": nn.Hardtanh, "relu": nn.ReLU}

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"postact_resnet.untrained": own_cfg(first_conv="stem", classifier="fc")})


class PostActivationUnit(nn.Module):
    """Convolve, normalize, add the input, activate.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least as many.
        stride: Step of the convolution in pixels.
        activation: Makes what follows the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = activation()

    def forward(self, features: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c2 height2 width2"]:
        """Return the unit's features."""
        shortcut = parameter_free_shortcut(features, self.stride, self.out_channels)
        output: Tensor = self.act(self.norm(self.conv(features)) + shortcut)
        return output


class PostActivationResNet(nn.Module):
    """Classify with a stem, three stages of post-activation units, a norm and a linear head: 6 · depth + 2 layers.

    **Source**: adversarial-focus, section 3.2, whose stem is ``hardtanh(bn(conv(x)))``: the form of the binary
    ResNet-20 of IR-Net, which the paper's formula fits best; it names no code.
    **Differs**: ``activation="relu"`` is the network that most call ResNet-20, but for its skips around single
    convolutions and the norm before the head.

    Args:
        depth: Pairs of units per stage; 3 makes ResNet-20.
        width: Channels of the first stage; the second has twice, the third four times as many.
        activation: ``"hardtanh"`` or ``"relu"``.
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the head.
        drop_rate: Dropout before the head.

    Raises:
        PassbandError: when depth or width is below 1, or the activation is unknown.
    """

    def __init__(
        self,
        depth: int = 3,
        width: int = 16,
        activation: Activation = "hardtanh",
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise PassbandError(f"a ResNet needs a depth and a width of at least 1; got {depth} and {width}")
        if activation not in ACTIVATIONS:
            raise PassbandError(f"the activation is one of {', '.join(ACTIVATIONS)}; got '{activation}'")
        kind = ACTIVATIONS[activation]
        self.num_classes, self.in_chans = num_classes, in_chans
        self.stem = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stem_act = kind()
        stages, channels, self.feature_info = [], width, []
        for index in range(3):
            units = []
            for position in range(2 * depth):
                stride = 2 if index > 0 and position == 0 else 1
                units.append(PostActivationUnit(channels, width * 2**index, stride, kind))
                channels = width * 2**index
            stages.append(nn.Sequential(*units))
            self.feature_info.append({"num_chs": channels, "reduction": 2**index, "module": f"stages.{index}"})
        self.stages = nn.Sequential(*stages)
        self.num_features = self.head_hidden_size = channels
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.norm = nn.BatchNorm1d(channels)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self._head()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def _head(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the linear head."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=True)
        self.fc = self._head()

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.stages(self.stem_act(self.stem_norm(self.stem(images))))
        return features

    def forward_head(self, features: Float[Tensor, "batch c h w"], pre_logits: bool = False) -> Tensor:
        """Return logits [batch, classes], or pooled features [batch, features] for ``pre_logits``."""
        pooled: Tensor = self.drop(self.norm(self.global_pool(features)))
        output: Tensor = pooled if pre_logits else self.fc(pooled)
        return output

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Tensor:
        """Return logits [batch, classes]."""
        return self.forward_head(self.forward_features(images))


@register_model  # type: ignore[untyped-decorator]
def postact_resnet(
    pretrained: bool = False,
    *,
    depth: int = 3,
    width: int = 16,
    activation: Activation = "hardtanh",
    drop_rate: float = 0.0,
    **arguments: Any,
) -> nn.Module:
    """Build a post-activation CIFAR ResNet through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(depth=depth, width=width, activation=activation, drop_rate=drop_rate)
    model: nn.Module = build_model_with_cfg(PostActivationResNet, "postact_resnet", pretrained, **arguments)
    return model
