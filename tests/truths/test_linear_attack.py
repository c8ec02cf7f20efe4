"""The worst margin of a linear model under L∞ is margin − ε‖w‖₁, and FGSM and PGD find it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from passband.attacks.auto_pgd import APGD
from passband.attacks.evaluate import robust_accuracy
from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import FGSM, PGD


class Linear(nn.Module):
    """Two logits whose difference is w·x + b."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        margin = images.flatten(1) @ self.weight + self.bias
        return torch.stack((torch.zeros_like(margin), margin), 1)


def problem(count: int = 64) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """Images whose pixels keep 0.2 from both ends, so that ε up to 0.2 meets no clip."""
    generator = torch.Generator().manual_seed(3)
    images = 0.2 + 0.6 * torch.rand(count, 3, 4, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(48, generator=generator, dtype=torch.float64)
    bias = -(images.flatten(1) @ weight).mean()
    model = Linear(weight, bias)
    margins = (images.flatten(1) @ weight + bias).detach()
    return model, images, (margins > 0).long(), margins


# PGD's steps of ε/4 need eight to cross the ball from a random start on the wrong side.
@pytest.mark.parametrize("attack", [FGSM(), PGD(), PGD(alpha=None, steps=4, random_start=False)], ids=str)
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.2])
def test_worst_margin_is_found(attack: FGSM | PGD, eps: float) -> None:
    model, images, labels, margins = problem()
    logits = model(attack.at(eps)(model, images, labels)).detach()
    found = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)
    worst = margins.abs() - eps * model.weight.abs().sum()
    assert torch.allclose(found, worst, atol=1e-12, rtol=0)


@pytest.mark.parametrize("eps", [0.05, 0.3])
@pytest.mark.parametrize(
    "attack", [PGDL2(alpha=None, steps=40), PGDL2(alpha=None, random_start=False), APGD("L2", steps=20)], ids=str
)
def test_worst_euclidean_margin_is_found(attack: PGDL2 | APGD, eps: float) -> None:
    """Under L2 it is margin − ε‖w‖₂."""
    model, images, labels, margins = problem()
    logits = model(attack.at(eps)(model, images, labels)).detach()
    found = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)
    worst = margins.abs() - eps * model.weight.norm()
    assert bool((found >= worst - 1e-12).all())
    # Steps along one direction from a random start come near the farthest point, not onto it.
    assert torch.allclose(found, worst, atol=1e-3 * eps * float(model.weight.norm().detach()), rtol=0)


def test_worst_margin_inside_the_pixel_range() -> None:
    """At the range's ends a pixel moves only as far as the range lets it."""
    model, _, _, _ = problem()
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(32, 3, 4, 4, generator=generator, dtype=torch.float64)
    margins = model(images)[:, 1].detach()
    labels = (margins > 0).long()
    eps, side = 0.3, (2 * labels - 1)[:, None].double()
    pixels, slope = images.flatten(1), model.weight.detach() * side
    loss_by_pixel = torch.where(slope > 0, slope * pixels.clamp(max=eps), -slope * (1 - pixels).clamp(max=eps))
    for attack in (FGSM(eps), PGD(eps, alpha=eps / 4)):
        found = model(attack(model, images, labels))[:, 1].detach() * side[:, 0]
        assert torch.allclose(found, margins.abs() - loss_by_pixel.sum(1), atol=1e-12, rtol=0)


def test_robust_accuracy_is_the_share_of_margins_above_the_norm() -> None:
    model, images, labels, margins = problem(200)
    labels[:20] = 1 - labels[:20]
    norm = float(model.weight.detach().abs().sum())
    eps = [0.0, 0.5 * float(margins.abs().median()) / norm, float(margins.abs().median()) / norm * 1.001]
    expected = torch.stack([margins.abs() > radius * norm for radius in eps])
    expected[:, :20] = False
    found = robust_accuracy(model, [(images, labels)], PGD(), eps)
    assert torch.equal(torch.from_numpy(found.correct), expected)
    assert found.accuracy[0] == 0.9 and 0 < found.accuracy[2] < found.accuracy[1] < 0.9
