"""A network with its normalization inside: images in [0, 1] in, logits (or images again) out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec


class Classifier(nn.Module):
    """Normalize images in [0, 1] and classify them.

    The input is never checked, so that attacks and band copies may pass whatever they mean to.

    Args:
        inner: The network: normalized images in, logits out. One that gives images (``spec.classes`` is 0) gives
            them as pixels in [0, 1].
        spec: The images it takes; its mean and std become buffers that stay out of the state dict, so that
            ``inner``'s weights load in plain timm.

    Raises:
        PassbandError: when mean and std do not fit the number of channels, or a std is not positive.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, inner: nn.Module, spec: ImageSpec) -> None:
        super().__init__()
        self.inner = inner
        self.spec = spec
        if (spec.mean is None) != (spec.std is None):
            raise PassbandError("mean and std belong together: give both or neither")
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, per_channel(name, values, spec.channels), persistent=False)

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch classes"] | Float[Tensor, "batch channel height width"]:
        """Return the logits of images in [0, 1], or the images that the network makes of them."""
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        outputs: Tensor = self.inner(images)
        return outputs

    def extra_repr(self) -> str:
        """Say what the images look like."""
        height, width = self.spec.size
        return f"{self.spec.channels}×{height}×{width}, mean={self.spec.mean}, std={self.spec.std}"


def per_channel(name: str, values: tuple[float, ...] | None, channels: int) -> Tensor | None:
    """Return a mean or std as a buffer [1, channels, 1, 1], None for None.

    Raises:
        PassbandError: when the values are neither one nor one per channel, not finite, or a std is not positive.
    """
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise PassbandError(f"{name} needs one number or one per channel ({channels}); got {len(values)}: {values}")
    tensor = torch.tensor(values, dtype=torch.float32).expand(channels).reshape(1, channels, 1, 1).clone()
    if not tensor.isfinite().all() or (name == "std" and not (tensor > 0).all()):
        raise PassbandError(f"{name} needs finite numbers{', above 0' if name == 'std' else ''}; got {values}")
    return tensor
