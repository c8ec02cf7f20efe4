"""The experiments about detection: what their claims make of rows, and what their recipes and counts are."""

from __future__ import annotations

import numpy as np
import pytest

from passband.core.scale import Scale
from passband.experiments import detectors
from passband.experiments.bootstrap import DRAWS, redrawn
from passband.experiments.high_frequency import detection
from passband.experiments.protocol import Measured
from passband.experiments.spartan import coco
from passband.tasks.precision_interval import redraw


def claim(experiment, name: str):
    return next(one for one in experiment.EXPERIMENT.claims if one.name == name)


def test_what_comes_drawn_lies_on_the_samples_that_means_are_drawn_on() -> None:
    scores = np.random.default_rng(1).random(7)
    counts = redraw(7, DRAWS)
    found = Measured({}, samples={"mean": scores}, redrawn={"ap": counts @ scores / 7}, drawn_from={"mean": "images"})
    rows = redrawn([({"case": "a"}, found)])
    assert len(rows) == DRAWS
    assert all(row[0]["mean"] == pytest.approx(row[0]["ap"]) for row in rows)
    assert len({row[0]["ap"] for row in rows}) > 100


def test_claims_about_low_frequencies_have_the_papers_sign() -> None:
    row = {
        "case": "RetinaNet", "seed": 0, "AP": 35.6, "LFC AP": 27.5, "HFC AP": 10.7, "images better": 33.7,
        "images worse": 60.0, "images better at largest r": 5.0,
    }  # fmt: skip
    margins = {
        one.name.partition(",")[0]: one.margin([row])
        for one in detection.EXPERIMENT.claims if one.name.endswith("RetinaNet")
    }  # fmt: skip
    expected = {"drops on LFC": 8.1, "HFC below LFC": 16.8, "more images lose than gain": 26.3}
    expected |= {"some are found better": 33.7, "better for the frequencies": 28.7}
    assert margins == pytest.approx(expected)
    assert claim(detection, "drops on LFC, SpaRTAN-T").margin([row]) is None


def test_images_that_gain_are_counted_once_at_their_radius() -> None:
    objects = {
        "photograph": np.array([0, 0, 2, 3]),
        "area": np.ones(4, np.float32),
        "original": np.array([0.5, 0.5, 0.2, 0.9]),
        # radii 16 and 64, ascending as the probe keeps them
        "LFC": np.array([[0.0, 0.0, 0.0, 0.0], [0.6, 0.7, 0.2, 0.8]]),
    }
    radii = (64.0, 16.0)
    assert detection._gaining(objects, radii, 64.0, 5).tolist() == [100, 0, 0, 0, 0]
    assert detection._gaining(objects, radii, 64.0, 5, sign=-1).tolist() == [0, 0, 0, 100, 0]
    assert detection._gaining(objects, radii, 16.0, 5, sign=-1).tolist() == [100, 0, 100, 100, 0]


def test_table_iiis_parameters_are_counted() -> None:
    counts = coco._counted("spartan_xt", "r18")
    assert counts["parameters"] == pytest.approx(10.875024)
    # A convolution of 640×640 pixels alone, two for a product and its sum, is a part of it.
    assert 2 * 320 * 320 * 9 * 3 * 16 / 1e9 < counts["FLOPs"] < 60


def test_claims_of_table_iii() -> None:
    rows = [
        {"case": "RT-DETR, ResNet-18", "seed": None, "parameters": 20.18, "FLOPs": 61.5},
        {"case": "RT-DETR, ResNet-34", "seed": None, "parameters": 31.44, "FLOPs": 93.6},
        {"case": "RT-DETR, SpaRTAN-T", "seed": None, "parameters": 22.18, "FLOPs": 77.7},
    ]
    assert claim(coco, "RT-DETR, ResNet-18, parameters").margin(rows) == 0
    assert claim(coco, "RT-DETR, ResNet-18, FLOPs").margin(rows) == -1
    assert claim(coco, "SpaRTAN-T has 10 M fewer than ResNet-34").margin(rows) == pytest.approx(31.44 - 22.18 - 9.5)
    assert claim(coco, "SpaRTAN-T costs less than ResNet-18").margin(rows) == pytest.approx(100 * (61.5 - 77.7) / 61.5)
    assert claim(coco, "SpaRTAN-T costs less than ResNet-34").margin(rows) == pytest.approx(100 * (93.6 - 77.7) / 93.6)
    seen = {"case": "ResNet-18", "seed": 0, "AP50": 70.0, "images": "32, those that it learned"}
    assert claim(coco, "ResNet-18 learns by heart").margin([seen]) == 20
    assert claim(coco, "ResNet-18 learns by heart").margin([seen | {"images": "5000, unseen"}]) is None


@pytest.mark.parametrize("scale", list(Scale))
def test_each_detector_is_one_training_for_both_papers(scale: Scale) -> None:
    names = {case["case"] for case in coco.cases(scale) if case["data"] is not None}
    assert names == set(detectors.BACKBONES[scale])
    assert set(detection.CASES[scale]) - {detection.RETINANET} <= names
    recipes = [
        detectors.training(scale, backbone, data=detectors.SETS[scale], seed=0)
        for backbone in detectors.BACKBONES[scale].values()
    ]
    assert len({recipe.digest("data") for recipe in recipes}) == len(recipes)
    assert all(recipe.task == "detection" and recipe.clip == 0.1 and recipe.ema is not None for recipe in recipes)


def test_the_full_recipe_is_rt_detrs() -> None:
    ours = detectors.training(Scale.FULL, "spartan_t", data="coco", seed=0)
    assert (ours.epochs, ours.batch, ours.data.size, ours.schedule.name) == (70, 16, 640, "constant")
    assert ours.optimizer.arguments["lr"] == 1e-4 and ours.optimizer.arguments["backbone"] == 1e-4
    theirs = detectors.training(Scale.FULL, "resnet34d", data="coco", seed=0)
    assert theirs.epochs == 72 and theirs.optimizer.arguments["backbone"] == 1e-5
    assert theirs.model.arguments == {"neck": "r34", "pretrained_backbone": True}
    assert [part.name for part in ours.augment] == ["photometric", "zoom-out", "iou-crop", "flip", "multi-scale"]
