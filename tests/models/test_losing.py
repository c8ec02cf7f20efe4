"""A detector of torchvision gives its losses, and is given back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from passband.models.losing import losing
from passband.models.state import frozen


class Backbone(nn.Sequential):
    """A stride of 8, and everything that training mode changes."""

    out_channels: int | list[int] = 32

    def __init__(self) -> None:
        first = nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.5), StochasticDepth(0.5, "row")
        super().__init__(*first, nn.Conv2d(32, 32, 3, 2, 1), FrozenBatchNorm2d(32), DropPath(0.5), nn.ReLU())


def retinanet() -> nn.Module:
    anchors = AnchorGenerator(((16, 32),), ((1.0,),))
    model = RetinaNet(Backbone(), 3, min_size=(48, 64), max_size=64, anchor_generator=anchors)
    model.head.classification_head.conv[0].append(nn.BatchNorm2d(32)).append(nn.Dropout(0.5))  # norms in heads too
    return model


def fcos() -> nn.Module:
    return FCOS(Backbone(), 3, min_size=64, max_size=64, anchor_generator=AnchorGenerator(((8,),), ((1.0,),)))


def ssd() -> nn.Module:
    backbone = Backbone()
    backbone.out_channels = [32]  # one per level, for SSD
    return SSD(backbone, DefaultBoxGenerator([[2]]), (64, 64), 3)


def faster_rcnn() -> nn.Module:
    anchors = AnchorGenerator(((16, 32),), ((1.0,),))
    few = {"rpn_batch_size_per_image": 8, "box_batch_size_per_image": 8}
    return FasterRCNN(Backbone(), 3, min_size=64, max_size=64, rpn_anchor_generator=anchors, **few)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def images() -> list[Tensor]:
    return list(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[4.0, 4, 28, 28], [20, 30, 60, 62]])
    return [
        {"boxes": boxes, "labels": torch.tensor([1, 2])},
        {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64)},
    ]


def losses(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """With a seed, for Faster R-CNN draws which boxes count."""
    torch.manual_seed(seed)
    found: Any = model(images(), targets())
    return {name: loss.detach() for name, loss in found.items()}


KINDS = [retinanet, fcos, ssd, faster_rcnn]


@pytest.mark.parametrize("kind", KINDS)
def test_gives_the_losses_of_evaluation_and_leaves_the_model_as_it_was(kind: Callable[[], nn.Module]) -> None:
    model = made(kind)
    model.head_of_mixed_modes = nn.Linear(1, 1)  # in training mode, in a model that is not
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with losing(model):
        first, again = losses(model), losses(model)
    assert first and all(torch.isfinite(loss) for loss in first.values())
    assert all(torch.equal(loss, again[name]) for name, loss in first.items())
    assert [module.training for module in model.modules()] == modes and True in modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    found = model(images())
    assert [set(one) >= {"boxes", "scores", "labels"} for one in found] == [True, True]


def test_without_it_the_losses_are_others_at_each_call_and_statistics_move() -> None:
    """The detector under test does hold what training mode changes."""
    model = made(retinanet)
    with losing(model):
        held = losses(model)
    before = [norm.running_mean.clone() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)]
    model.train()
    assert any(not torch.equal(loss, held[name]) for name, loss in losses(model).items())
    assert any(not torch.equal(loss, losses(model, seed=1)[name]) for name, loss in losses(model).items())
    after = [norm.running_mean for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert len(before) == 2 and not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", [retinanet, fcos, ssd])
def test_nothing_is_drawn_but_by_the_samplers(kind: Callable[[], nn.Module]) -> None:
    """RetinaNet's two sizes are drawn in training mode; the last one is the one of evaluation."""
    model = made(kind)
    with losing(model):
        every = [losses(model, seed) for seed in range(3)]
    assert all(torch.equal(loss, other[name]) for other in every[1:] for name, loss in every[0].items())
    with losing(sampling := made(faster_rcnn)):
        assert any(not torch.equal(loss, losses(sampling, 1)[name]) for name, loss in losses(sampling).items())


def test_what_is_held_keeps_the_mode_that_it_has() -> None:
    model = made(retinanet)
    model.train()
    with losing(model):
        assert all(module.training for module in model.modules())
    model.eval()
    model.backbone[1].train()
    with losing(model):
        assert model.training and model.head.training and model.backbone[1].training
        *_, norm, dropout = model.head.classification_head.conv[0]
        others = (norm, dropout, model.backbone, model.backbone[3], model.transform)
        assert not any(module.training for module in others)


def test_modes_come_back_after_an_error() -> None:
    model = made(faster_rcnn)
    model.rpn.train()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError), losing(model):
        raise KeyError
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(AssertionError, match="positive height and width"), losing(model):
        model(images(), [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1, dtype=torch.int64)}] * 2)
    assert [module.training for module in model.modules()] == modes


def test_gradients_reach_the_images_of_a_frozen_detector() -> None:
    model, points = made(retinanet), torch.stack(images()).requires_grad_(True)
    with frozen(model), losing(model):
        torch.stack(list(model(list(points), targets()).values())).sum().backward()
    assert points.grad is not None and bool(points.grad[0].any()) and bool(points.grad[1].any())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
