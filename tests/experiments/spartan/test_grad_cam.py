"""Which layers and which classes the experiment about Grad-CAM speaks of, and what it refuses before any training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import passband
from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.scale import Scale
from passband.core.spec import ImageSpec
from passband.data.coco import Scene, Thing
from passband.experiments.spartan import grad_cam
from passband.experiments.spartan.camera import Camera, outputs
from passband.experiments.spartan.settings import network, peers, training
from passband.models.wrap import Classifier
from passband.probes.cam_layer import layer_named
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import Subject


def made(given: dict) -> nn.Module:
    arguments = dict(given)
    return passband.create(arguments.pop("name"), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3, **arguments)


def test_maps_are_of_the_last_stages_with_enough_places() -> None:
    spartan, convnext = made(network(Scale.SMOKE)), made(peers(Scale.SMALL)["ConvNeXt"])
    images = torch.rand(2, 3, 32, 32)
    assert [grad_cam.finer_stage(one, Scale.SMALL) for one in (spartan, convnext)] == ["stages.2", "stages.1"]
    assert [layer_named(one, None, images) for one in (spartan, convnext)] == ["stages.3.1", "stages.2"]


class Sums(nn.Module):
    """Say of three outputs what the channels sum to."""

    def forward(self, images: Tensor) -> Tensor:
        return images.sum((2, 3))


def test_of_several_outputs_in_a_class_of_objects_the_largest_is_explained(tmp_path: Path) -> None:
    spec = ImageSpec((2, 2), (0.5,) * 3, (0.25,) * 3, "by hand", 3, class_names=("cab", "dog", "van"))
    model = Classifier(Sums(), spec)
    lab = Lab(Scale.SMOKE, "x", runs=tmp_path, compute=Compute(device="cpu"))
    run = SimpleNamespace(recipe=training(Scale.SMOKE, data="photos", seed=0))
    camera = Camera(Subject.of("sums", model), run, lab, {"car": ("cab", "van"), "dog": ("dog",)})
    images = np.zeros((4, 2, 2, 3), np.uint8)
    images[0, ..., 0] = images[1, ..., 2] = images[2, ..., 0] = images[3, ..., 1] = 200
    assert camera._labels(images, ("car", "car", "dog", "car")).tolist() == [0, 2, 1, 0]
    assert camera._labels(images, ("dog",) * 4).tolist() == [1] * 4


def test_a_set_without_the_classes_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(PassbandError, match="needs a set with the class a or b, and mine has none: leave --data out"):
        outputs(("d",), ("a", "b", "c"), "mine")
    for name in ("train/thing", "test/thing"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "mine" / name / "one.png")
    lab = Lab(Scale.SMOKE, "x", runs=tmp_path / "runs", compute=Compute(device="cpu"))
    case = {"case": "SpaRTAN", "data": f"folder:{tmp_path / 'mine'}", "seed": 0}
    with pytest.raises(PassbandError, match=r"grad-cam needs a set with the class .*/mine has none: leave --data out"):
        grad_cam.measure(case, lab)
    assert not (tmp_path / "runs").exists()


def test_one_photograph_has_no_others_to_be_compared_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (160, 120)).save(tmp_path / "one.png")
    lab = Lab(Scale.SMALL, "x", runs=tmp_path)
    scene = Scene(tmp_path / "one.png", (120, 160), (Thing("cat", (60, 40, 90, 80)),))
    monkeypatch.setattr(grad_cam, "coco128", lambda data_dir: (scene,))
    with pytest.raises(PassbandError, match="two photographs with objects, and coco128 gives 1: lay it out anew"):
        grad_cam.objects(lab)
