"""Detectors as the commands name them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passband.core.errors import NotApplicable, PassbandError
from passband.core.recipe import Recipe
from passband.models.detectors import create_detector
from passband.sweeps import probing
from passband.sweeps.resolve import DetectorSubject, detector_subject, detects, run_name, subject

NAME = "rtdetr:mobilenetv3_small_050"
SSD = "torchvision:ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return create_detector(NAME, class_names=("a",), size=64, width=32, feedforward=64, decoder_layers=1, queries=10)


def test_what_is_a_detector(small) -> None:
    assert detects(NAME) and detects(SSD) and detects(small)
    assert not detects("resnet18") and not detects(nn.Linear(1, 1)) and not detects("torchvision:resnet18")


def test_the_same_name_draws_the_same_weights_and_nothing_of_the_callers() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = detector_subject(SSD, pretrained=False)
    assert torch.equal(torch.get_rng_state(), before) and not first.model.training
    again = detector_subject(SSD, pretrained=False)
    assert (first.digest, first.behavior) == (again.digest, again.behavior) and first.name == SSD


def test_an_object_of_the_callers_stays_as_it_is(small) -> None:
    small.train()
    asked = detector_subject(small)
    assert asked.model is small and small.training and asked.name == "RTDetrForObjectDetection"
    with torch.no_grad():
        small.inner.model.enc_score_head.bias.add_(1)
    other = DetectorSubject.of("x", small)
    assert other.digest != asked.digest


def test_a_saved_folder_needs_no_no_pretrained(small, tmp_path) -> None:
    small.inner.save_pretrained(tmp_path / "mine")
    found = detector_subject(f"rtdetr:{tmp_path / 'mine'}", size=64)
    assert found.model.spec.class_names == ("a",) and not found.model.training


def test_detectors_have_probes_of_their_own(small) -> None:
    assert probing.usual_of(small) == ("detection",) == probing.usual_of(DetectorSubject("x", small, "", ""))
    assert probing.usual_of("resnet18") == probing.USUAL
    assert set(probing.plan(None, [], usual=probing.usual_of(small))) == {"detection"}


def test_a_runs_name_says_what_was_trained() -> None:
    recipe = Recipe.of({"task": "detection", "model": {"name": NAME}, "data": {"name": "coco128", "size": 64}})
    assert run_name(recipe) == f"{NAME}, coco128, seed 0"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("retinanet", "unknown model 'retinanet'"),
        ("torchvision:retinanet_resnet50", "unknown torchvision model 'retinanet_resnet50'"),
        (NAME, "is a detector, and a classifier is needed here"),
    ],
)
def test_names_that_mean_no_classifier(source, words) -> None:
    with pytest.raises((PassbandError, NotApplicable), match=words) as caught:
        subject(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"truth": "prediction"},
            "which normalizes inside and is compared with boxes; leave out --truth",
        ),
        ({"mean": (0.5,) * 3}, "leave out --mean"),
        ({}, "there are no pretrained weights of 'rtdetr:mobilenetv3_small_050'; take it without"),
        ({"pretrained": False, "size": 100}, "a multiple of 32 pixels; got 100"),
    ],
)
def test_mistakes_are_one_line(options, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        probing.prepared(NAME, "coco128", device="cpu", **options)
    assert "\n" not in str(caught.value)
