"""torchvision's detectors give losses in training mode alone: that mode, without what else it changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers import DropBlock2d as TimmDropBlock2d
from timm.layers import DropPath, PatchDropout
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import DropBlock2d, DropBlock3d, StochasticDepth

HELD = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.MultiheadAttention,  # drops by its own mode, without a module for it
    nn.RReLU,
    StochasticDepth,
    DropBlock2d,
    DropBlock3d,
    DropPath,
    PatchDropout,
    TimmDropBlock2d,
    GeneralizedRCNNTransform,  # in training mode it draws the size that it resizes to
)
"""Modules whose training mode draws at random, or moves running statistics."""


@contextmanager
def losing(detector: nn.Module) -> Iterator[nn.Module]:
    """Lend a detector of torchvision out in the mode in which it gives losses.

    Inside, every submodule is in training mode but those that would then answer otherwise, which keep the mode that
    they have: the whole backbone, and elsewhere batch norms, dropout, stochastic depth, and the resizing. So a
    detector in evaluation mode gives the losses of its evaluation, and one in training those of its training. On
    leaving, also by an error, the mode of every submodule is what it was.

    The samplers of Faster R-CNN, Mask R-CNN and Keypoint R-CNN still draw the boxes that count, from torch's own
    random numbers; RetinaNet, FCOS and SSD draw nothing.

    Args:
        detector: A detector of ``torchvision.models.detection``, or one built alike.
    """
    backbone = getattr(detector, "backbone", None)
    held = set(backbone.modules()) if isinstance(backbone, nn.Module) else set()
    modes = [(module, module.training) for module in detector.modules()]
    try:
        for module, _ in modes:
            if module not in held and not isinstance(module, HELD):
                module.training = True  # train() recurses, into what is held
        yield detector
    finally:
        for module, training in modes:
            module.training = training
