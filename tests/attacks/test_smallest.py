"""The searches for the smallest ε find it where it is known on paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from passband.attacks.smallest import SmallestFGSM, SmallestPGD
from passband.core.errors import PassbandError


class Bright(nn.Module):
    """Class 1 when the mean pixel lies above one half: it falls at ε = ½ − mean, whatever the attack."""

    def forward(self, images: Tensor) -> Tensor:
        margin = images.mean((1, 2, 3)) - 0.5
        return torch.stack((-margin, margin), 1)


DISTANCES = torch.tensor([0.0042, 0.0191, 0.0404, 0.2502, 0.4993], dtype=torch.float64)
IMAGES = (0.5 - DISTANCES)[:, None, None, None].expand(5, 3, 4, 4)
LABELS = torch.zeros(5, dtype=torch.int64)


def found(attack: SmallestFGSM | SmallestPGD, images: Tensor = IMAGES, labels: Tensor = LABELS) -> Tensor:
    return (attack(Bright(), images, labels) - images).abs().amax((1, 2, 3))


def test_fgsm_goes_through_a_grid_and_refines_its_first_values() -> None:
    # On the grid of 1/1000 up from the distance; the first 20 values are cut into 20 once more.
    first = [0.0042, 0.0191]
    fine = [
        next(k * top / 20 for k in range(1, 21) if k * top / 20 > d)
        for d, top in zip(first, [0.005, 0.02], strict=True)
    ]
    expected = torch.tensor([*fine, 0.041, 0.251, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found(SmallestFGSM()), expected, rtol=0, atol=1e-9)


def test_pgd_bisects_to_the_distance() -> None:
    size = found(SmallestPGD())
    assert bool((size > DISTANCES).all())
    torch.testing.assert_close(size, DISTANCES, rtol=0, atol=1e-5)


def test_what_is_wrong_already_is_its_own_answer_and_what_cannot_fall_stays() -> None:
    class Never(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            zero = images.sum((1, 2, 3)) * 0
            return torch.stack((zero + 1, zero), 1)

    for attack in (SmallestFGSM(), SmallestPGD(steps=3)):
        assert torch.equal(attack(Bright(), IMAGES, LABELS + 1), IMAGES)
        assert torch.equal(attack(Never(), IMAGES, LABELS), IMAGES)


def test_targeted() -> None:
    torch.testing.assert_close(found(SmallestPGD(targeted=True), labels=LABELS + 1), DISTANCES, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"eps": 0.0}, {"alpha": 0.0}, {"steps": 0}, {"eps": 8.0}])
def test_refuses(options: dict[str, float]) -> None:
    with pytest.raises(PassbandError, match="eps and alpha lie above 0"):
        SmallestPGD(**options)  # type: ignore[arg-type]
