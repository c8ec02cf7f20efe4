"""The probe `robustness` on a model whose answer is known: brightness against a threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.results import Curve, Gallery
from passband.data.dataset import Batches, ImageSet
from passband.probes.registry import PROBES

robustness = PROBES["robustness"]


class Bright(nn.Module):
    """Class 1 when the mean pixel lies above one half: it falls at ε = |mean − ½|, whatever the attack."""

    def forward(self, images: Tensor) -> Tensor:
        margin = images.mean((1, 2, 3)) - 0.5
        return torch.stack((-margin, margin), 1)


LEVELS = np.array([125, 124, 121, 110, 131, 129, 128, 126])
"""Gray levels of flat images; one half is 127.5. The last one's label is wrong."""


def batches() -> Batches:
    pixels = np.broadcast_to(LEVELS[:, None, None, None], (8, 4, 4, 3)).astype(np.uint8)
    return ImageSet("flat", pixels, np.array([0, 0, 0, 0, 1, 1, 1, 1]), ("dark", "bright"), "f").batches(3)


def test_accuracy_falls_where_it_must() -> None:
    accuracy, examples = robustness(Bright(), batches(), eps=(4 / 255, 2 / 255, 8 / 255), examples=2)
    assert isinstance(accuracy, Curve) and accuracy.x.values == (0, 2, 4, 8) and accuracy.y.name == "accuracy"
    distance = np.abs(LEVELS - 127.5)
    expected = np.array([(distance > gray) & (np.arange(8) < 7) for gray in (0, 2, 4, 8)])
    for series in accuracy.series:
        assert np.array_equal(accuracy.arrays[series.name], expected)
        assert series.values == tuple(row.mean() for row in expected) and series.n == 8
        assert series.low is not None and series.low[0] == pytest.approx(0.5291, abs=1e-4)
    assert [series.name for series in accuracy.series] == ["fgsm", "pgd"]
    assert accuracy.how["probe"] == "robustness" and accuracy.how["verdict"] == "any"
    assert isinstance(examples, Gallery) and "4/255" in examples.title
    first = examples.pictures[0]
    assert first.image.shape == (4, 12, 3) and first.data["truth"] == "dark"
    assert first.data["untouched"]["prediction"] == "dark" and first.data["attacked"]["prediction"] == "bright"
    assert [int(first.image[0, column, 0]) for column in (0, 4, 8)] == [125, 129, 255]


def test_against_the_prediction_says_agreement() -> None:
    own = batches().with_targets((torch.from_numpy(LEVELS) > 127).long(), "prediction")
    (accuracy,) = robustness(Bright(), own, eps=(2 / 255,), attacks=("fgsm",), examples=0)
    assert accuracy.y.name == "agreement with the prediction on the untouched image"
    assert accuracy.series[0].values == (1.0, 0.625)


def test_options_come_as_strings() -> None:
    given = {
        "eps": "1/255,2/255",
        "attacks": "pgd",
        "steps": "3",
        "alpha": "1/255",
        "preset": "spatial-mixing",
    }
    options = parse_options(robustness, given, owner="probe robustness")
    (accuracy,) = robustness(Bright(), batches(), examples=0, **options)
    assert accuracy.how["attacks"]["pgd"].startswith("PGD(eps=0.03137254901960784, alpha=0.0039")
    assert "steps=3, random_start=False" in accuracy.how["attacks"]["pgd"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": ("pgdd",)}, "unknown attack 'pgdd': did you mean 'pgd'"),
        ({"preset": "high-frequenc"}, "did you mean 'high-frequency'"),
        ({"eps": ()}, "at least one"),
        ({"eps": (4.0,)}, "write 4/255"),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        robustness(Bright(), batches(), **options)


def test_refuses_images_without_labels() -> None:
    unlabeled = ImageSet("flat", np.zeros((2, 4, 4, 3), np.uint8), None, (), "f").batches(2)
    with pytest.raises(PassbandError, match="--truth prediction"):
        robustness(Bright(), unlabeled)
