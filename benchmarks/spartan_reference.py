"""SpaRTAN as its description reads: complex numbers through permute and view, nothing folded, PyTorch's own layout.

It is what ``benchmarks.spartan`` and its test hold passband's network against, and takes that network's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Convolution(nn.Module):
    """Convolve without a bias, normalize, activate."""

    def __init__(
        self, before: int, after: int, kernel: int, act: nn.Module, *, stride: int = 1, dilation: int = 1,
        groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        padding = dilation * (kernel // 2) if kernel % 2 else 0
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, dilation, groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=1e-6)
        self.act = act

    def forward(self, features: Tensor) -> Tensor:
        """Return what follows the activation."""
        activated: Tensor = self.act(self.norm(self.conv(features)))
        return activated


class Attention(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze, self.expand = nn.Conv2d(channels, bottleneck, 1), nn.Conv2d(bottleneck, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, each channel times its gate."""
        hidden = self.squeeze(features.mean((2, 3), keepdim=True)).relu()
        gated: Tensor = features * self.expand(hidden).sigmoid()
        return gated


class SpatialMixer(nn.Module):
    """Mix positions by two branches."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        half = channels // 2
        self.proj_in = nn.Conv2d(channels, half, 1)
        self.gamma = nn.Parameter(torch.full((1, half, 1, 1), 1e-5))
        self.high = Convolution(half, half, 3, nn.GELU(), groups=groups)
        self.low_first = nn.Conv2d(half, half, 3, padding=2, dilation=2, groups=groups, bias=False)
        self.low_second = Convolution(half, half, 3, nn.GELU(), dilation=2, groups=groups)
        self.high_attention, self.low_attention = Attention(half, half // 4), Attention(half, half // 4)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the mixed features."""
        features = self.proj_in(features)
        features = features + self.gamma * (features - features.mean((2, 3), keepdim=True))
        high = self.high_attention(self.high(features))
        low = self.low_attention(self.low_second(self.low_first(features)))
        mixed: Tensor = self.proj_out(torch.cat((high, low), 1))
        return mixed


class ChannelMixer(nn.Module):
    """Mix channels as waves."""

    def __init__(self, channels: int, ratio: int, groups: int) -> None:
        super().__init__()
        width = channels * ratio
        self.theta, self.amplitude = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 1)
        self.act = nn.GELU()
        self.complex = nn.Parameter(torch.randn(1, 1, 1, width // 2, 2))
        self.conv = Convolution(width, width, 3, nn.GELU(), groups=groups)
        self.attention = Attention(width, channels // 4)
        self.proj_out = nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the mixed features."""
        index = features.argmax(1, keepdim=True)
        theta, amplitude = self.act(self.theta(features)), self.amplitude(features)
        selected = amplitude.gather(1, index) * theta.gather(1, index)
        waves = amplitude * theta + selected
        with torch.autocast(features.device.type, enabled=False):
            waves = self.modulate(waves.to(self.complex.dtype))
        mixed: Tensor = self.proj_out(self.attention(self.conv(waves)))
        return mixed

    def modulate(self, waves: Tensor) -> Tensor:
        """Multiply pairs of neighboring channels, as complex numbers, by learned ones."""
        batch, channels, height, width = waves.shape
        pairs = waves.permute(0, 2, 3, 1).reshape(batch, height, width, channels // 2, 2).contiguous()
        product = torch.view_as_complex(pairs) * torch.view_as_complex(self.complex)
        back = torch.view_as_real(product).reshape(batch, height, width, channels)
        return back.permute(0, 3, 1, 2).contiguous()


class Block(nn.Module):
    """Add what both mixers make of the normalized features."""

    def __init__(self, channels: int, ratio: int, depthwise: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(1, channels, eps=1e-6), nn.GroupNorm(1, channels, eps=1e-6)
        self.smixer = SpatialMixer(channels, channels // 2 if depthwise else 1)
        self.cmixer = ChannelMixer(channels, ratio, channels if depthwise else channels * ratio)
        self.scale_1 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-5))
        self.scale_2 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-5))

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        features = features + self.scale_1 * self.smixer(self.norm_1(features))
        output: Tensor = features + self.scale_2 * self.cmixer(self.norm_2(features))
        return output


class Reference(nn.Module):
    """SpaRTAN of type H."""

    def __init__(
        self, widths: tuple[int, ...] = (32, 64, 128, 256), depths: tuple[int, ...] = (3, 3, 12, 2),
        ratios: tuple[int, ...] = (4, 4, 2, 2), num_classes: int = 1000,
    ) -> None:  # fmt: skip
        super().__init__()
        half = widths[0] // 2
        layers: list[nn.Module] = [
            Convolution(3, half, 3, nn.GELU(), stride=2), Convolution(half, widths[0], 3, nn.GELU(), stride=2)
        ]  # fmt: skip
        for stage, (width, depth, ratio) in enumerate(zip(widths, depths, ratios, strict=True)):
            if stage:
                layers.append(Convolution(widths[stage - 1], width, 2, nn.SiLU(), stride=2))
            layers += [Block(width, ratio, depthwise=stage > 1) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [batch, classes]."""
        logits: Tensor = self.linear(self.layers(images).mean((2, 3)))
        return logits


ORDER = (
    ("spatial_scale", "scale_1"), ("channel_scale", "scale_2"), ("spatial_norm", "norm_1"), ("channel_norm", "norm_2"),
    ("spatial.reduce", "smixer.proj_in"), ("spatial.gamma", "smixer.gamma"), ("spatial.high.", "smixer.high."),
    ("spatial.low.0", "smixer.low_first"), ("spatial.low.1", "smixer.low_second"),
    ("spatial.high_attention.fc1", "smixer.high_attention.squeeze"),
    ("spatial.high_attention.fc2", "smixer.high_attention.expand"),
    ("spatial.low_attention.fc1", "smixer.low_attention.squeeze"),
    ("spatial.low_attention.fc2", "smixer.low_attention.expand"), ("spatial.project", "smixer.proj_out"),
    ("channel.phase", "cmixer.theta"), ("channel.amplitude", "cmixer.amplitude"),
    ("channel.rotation", "cmixer.complex"),
    ("channel.refine", "cmixer.conv"), ("channel.attention.fc1", "cmixer.attention.squeeze"),
    ("channel.attention.fc2", "cmixer.attention.expand"), ("channel.project", "cmixer.proj_out"),
)  # fmt: skip
"""Names in one of our blocks and in one of the reference's."""


def names(ours: nn.Module) -> dict[str, str]:
    """Return for each tensor of our network its name in the reference."""
    parts = [f"stem.{index}" for index in range(2)]
    stages = ours.get_submodule("stages")
    parts += [
        f"stages.{stage}.{one}" for stage, blocks in stages.named_children() for one, _ in blocks.named_children()
    ]
    found = {"head.fc.weight": "linear.weight", "head.fc.bias": "linear.bias"}
    for index, part in enumerate(parts):
        for name in ours.get_submodule(part).state_dict():
            theirs = next((name.replace(one, other, 1) for one, other in ORDER if name.startswith(one)), name)
            found[f"{part}.{name}"] = f"layers.{index}.{theirs}"
    return found


def copy_weights(ours: nn.Module, reference: Reference) -> Reference:
    """Give the reference our network's weights and statistics."""
    state, own = reference.state_dict(), ours.state_dict()
    renamed = {theirs: own[name].reshape(state[theirs].shape) for name, theirs in names(ours).items()}
    reference.load_state_dict(renamed)
    return reference


def reference_gradients(ours: nn.Module, reference: Reference) -> dict[str, tuple[Tensor, Tensor]]:
    """Return our gradient and the reference's of each parameter, in our shape."""
    theirs, named = dict(reference.named_parameters()), names(ours)
    pairs = {}
    for name, parameter in ours.named_parameters():
        grad = theirs[named[name]].grad
        assert parameter.grad is not None and grad is not None, name
        pairs[name] = (parameter.grad, grad.reshape(parameter.shape))
    return pairs
