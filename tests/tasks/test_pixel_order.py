from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import NotApplicable, PassbandError
from passband.tasks import TASKS, UNSHUFFLE
from passband.tasks.unshuffle import check_restored, loss, mean_interval, pixel_order, psnr, shuffle

EXACT = 10 * math.log10(2**48)


class Inverse(nn.Module):
    """Undo one permutation exactly."""

    def __init__(self, size: tuple[int, int], seed: int = 0) -> None:
        super().__init__()
        self.back = pixel_order(size, seed).argsort()

    def forward(self, images: Tensor) -> Tensor:
        return shuffle(images, self.back)


def test_the_order_is_one_permutation_for_good() -> None:
    order = pixel_order((2, 3))
    assert order.tolist() == [3, 2, 1, 0, 4, 5]  # a trained model knows no other: this never changes
    assert sorted(pixel_order((7, 5)).tolist()) == list(range(35))
    assert not torch.equal(pixel_order((7, 5)), pixel_order((7, 5), 1))


def test_every_channel_and_image_is_shuffled_alike_and_the_layout_stays() -> None:
    images = torch.arange(2 * 3 * 6.0).view(2, 3, 2, 3)
    order = torch.tensor([5, 0, 1, 2, 3, 4])
    moved = shuffle(images, order)
    assert moved[0, 0].tolist() == [[5.0, 0.0, 1.0], [2.0, 3.0, 4.0]]
    assert moved[1, 2].tolist() == [[35.0, 30.0, 31.0], [32.0, 33.0, 34.0]]
    last = shuffle(images.contiguous(memory_format=torch.channels_last), order)
    assert torch.equal(last, moved) and moved.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("error", "decibels"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0), (0.0, EXACT)])
def test_psnr_of_a_known_error(error: float, decibels: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    restored = images.clone()
    restored[1] += error
    found = psnr(restored, images)
    assert found.tolist() == pytest.approx([EXACT, decibels], abs=1e-5)
    assert float(loss(restored, images)) == pytest.approx(error**2 / 2)


def test_psnr_is_averaged_over_images_not_taken_of_the_averaged_error() -> None:
    images = torch.zeros(2, 1, 1, 2)
    restored = torch.tensor([[[[0.1, 0.1]]], [[[0.0, 0.01 * 2**0.5]]]])
    mean, low, high = mean_interval(psnr(restored, images))
    assert mean == pytest.approx(30.0, abs=1e-5)  # of 20 dB and 40 dB
    half = 1.959964 * 14.142136 / 2**0.5  # the standard deviation of 20 and 40 is 10 √2
    assert low is not None and high is not None
    assert (mean - low, high - mean) == (pytest.approx(half, abs=1e-4), pytest.approx(half, abs=1e-4))
    assert mean_interval(torch.tensor([3.0])) == (3.0, None, None)


def test_a_model_that_inverts_the_permutation_is_exact_and_one_that_does_nothing_is_not() -> None:
    images = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    batches = [(images[:3], torch.zeros(3)), (images[3:], torch.zeros(2))]
    assert UNSHUFFLE.measure(Inverse((6, 4)), batches).tolist() == pytest.approx([EXACT] * 5)
    # Two uniform pixels differ by 1/6 squared in the mean: 7.8 dB.
    for other in (nn.Identity(), Inverse((6, 4), seed=1)):
        assert float(UNSHUFFLE.measure(other, batches).mean()) == pytest.approx(7.8, abs=1.5)
    assert UNSHUFFLE.metrics(Inverse((6, 4)), batches)["test_psnr"] == pytest.approx(EXACT)
    assert UNSHUFFLE.evaluate(Inverse((6, 4)), batches) == pytest.approx(EXACT)


def test_what_is_no_restored_image_is_refused() -> None:
    images = torch.rand(2, 3, 4, 4)
    for answer, came in ((torch.rand(2, 10), r"\[2, 10\]"), (torch.rand(2, 3, 4, 2), r"\[2, 3, 4, 2\]"), ([], "list")):
        with pytest.raises(NotApplicable, match=f"such as conv_mixer_pixels; this one gives {came}"):
            check_restored(answer, images)
    with pytest.raises(PassbandError, match="gives NaN"):
        check_restored(images * float("nan"), images)


def test_tasks_are_called_what_recipes_call_them() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {
        name: name for name in ("classification", "unshuffle", "detection")
    }
