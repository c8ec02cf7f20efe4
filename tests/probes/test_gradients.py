"""The probe `gradients`: which images it finds without a gradient, and how sure it finds the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import NotApplicable
from passband.core.results import Scalar
from passband.data.dataset import Batches, ImageSet
from passband.probes.gradients import gradients, input_gradients


class TwoMeans(nn.Module):
    """Answer class 1 by how far an image's mean lies above one half, times a gain."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, images: Tensor) -> Tensor:
        logit = self.gain * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack((-logit, logit), 1)


def images() -> Batches:
    """Four gray images: both classes right, once nearly and once clearly; and one wrong."""
    levels = np.array([126, 0, 255, 0], dtype=np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (4, 4, 4, 3)).copy()
    return ImageSet("levels", pixels, np.array([0, 0, 1, 1]), ("dark", "light"), "0" * 64).batches(3)


def test_a_gradient_vanishes_where_the_softmax_is_sure_to_the_last_bit() -> None:
    zero, confidence = gradients(TwoMeans(300.0), images())
    assert isinstance(zero, Scalar) and isinstance(confidence, Scalar)
    assert zero.arrays["right"].tolist() == [True, True, True, False]
    assert zero.arrays["zero"].tolist() == [False, True, True, False]
    assert zero.value == pytest.approx(2 / 3) and zero.n == 3
    # p of the wrong class is 1 / (1 + exp(2 · 300 · 1.5/255)), and each of 48 pixels moves both logits by 300/48.
    wrong = 1 / (1 + np.exp(2 * 300 * 1.5 / 255))
    assert zero.arrays["largest"][0] == pytest.approx(2 * 300 / 48 * wrong, rel=1e-3)
    assert confidence.value == pytest.approx((1 - wrong + 3) / 4) and confidence.n == 4


def test_every_image_of_a_mild_model_has_a_gradient() -> None:
    assert not input_gradients(TwoMeans(1.0), images()).zero.any()
    assert gradients(TwoMeans(1.0), images())[0].value == 0


def test_without_a_right_answer_there_is_no_share() -> None:
    zero, _ = gradients(TwoMeans(-1.0), images().dataset.subset(np.array([0, 1])).batches(2))
    assert zero.value is None and zero.n == 0


def test_the_model_is_left_as_it_was_found() -> None:
    model = TwoMeans(1.0)
    gradients(model, images())
    assert model.training and model.gain.requires_grad and model.gain.grad is None


def test_a_model_that_normalizes_by_batch_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), TwoMeans(1.0))
    with pytest.raises(NotApplicable, match="by batch"):
        gradients(model, images())
