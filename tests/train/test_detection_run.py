"""Training a detector: what the log and the metrics say, what comes back, and a stop anywhere."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from passband.core.compute import Compute
from passband.core.errors import NotApplicable, PassbandError
from passband.core.recipe import Recipe
from passband.data.objects import Objects, Targets
from passband.data.scenes import SceneSet
from passband.models.detectors import create_detector
from passband.train import build, detecting, fit, optim, steps
from passband.train.checkpoint import State
from passband.train.run import load, load_detector, train

RTDETR = {"width": 32, "feedforward": 64, "decoder_layers": 1, "queries": 10, "denoising": 4}
TINY = Recipe.of(
    {
        "task": "detection",
        "model": {"name": "rtdetr:mobilenetv3_small_050", **RTDETR},
        "data": {"name": "few", "size": 64},
        "augment": [{"name": "flip"}, {"name": "multi-scale", "sizes": [32, 64]}],
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-4, "backbone": 1e-4, "decay": "kernels"},
        "schedule": {"name": "constant"},
        "clip": 0.1,
        "ema": {"decay": 0.9, "warmup": 2},
        "epochs": 2,
        "batch": 2,
    }
)
EVERY_STEP = Compute(device="cpu", checkpoint_seconds=0.0)


def _pixels(name: str) -> np.ndarray:
    image = np.zeros((48, 56, 3), np.uint8)
    image[10:30, 12:40, int(name) % 3] = 255
    return image


def scenes(recipe: Recipe, split: str, data_dir: object = None) -> SceneSet:
    """Four photographs of one rectangle each, in two classes; the last one holds a crowd beside."""
    objects = []
    for place in range(4):
        boxes = torch.tensor([[12.0, 10.0, 40.0, 30.0], [0.0, 0.0, 56.0, 48.0]])[: 1 + (place == 3)]
        crowd = torch.tensor([False, True])[: len(boxes)]
        objects.append(Objects(boxes, torch.full((len(boxes),), place % 2), crowd, torch.full((len(boxes),), 560.0)))
    return SceneSet("few", ("0", "1", "2", "3"), ((48, 56),) * 4, tuple(objects), _pixels, ("odd", "even"), split * 8)


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(detecting, "scenes", scenes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(detecting, "scenes", scenes)
        whole = train(TINY, compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path_factory.mktemp("whole"))
    return whole


class Killed(Exception):
    """Stands for whatever ends a process."""


def log(found) -> list[str]:
    return [line.rpartition(",")[0] for line in (found.folder / "log.csv").read_text().splitlines()]  # no seconds


def test_a_training_stopped_at_every_step_ends_with_the_same_weights_and_log(trained, tmp_path, monkeypatch) -> None:
    real, calls = steps.learning, {"left": 0}

    def dying(task):
        def step(*arguments):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise Killed
            return real(task)(*arguments)

        return step

    monkeypatch.setattr(steps, "learning", dying)
    stops = 0
    while True:
        calls["left"] = 1
        torch.manual_seed(99 + stops)  # as a new process would begin
        try:
            parts = train(TINY, compute=EVERY_STEP, runs=tmp_path)
            break
        except Killed:
            stops += 1
    assert stops == 3  # of four steps
    expected, found = (load_file(one.folder / "weights.safetensors") for one in (trained, parts))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert log(parts) == log(trained)


def test_the_log_and_the_metrics(trained) -> None:
    head, *lines = log(trained)
    assert head == "epoch,step,lr,loss,train_ap50,test_ap50"
    cells = [line.split(",") for line in lines]
    assert [one[:3] for one in cells] == [["1", "2", "0.001"], ["2", "2", "0.001"]]
    assert all(float(one[3]) > 0 and one[4] == "" and 0 <= float(one[5]) <= 1 for one in cells)
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    assert metrics["test_images"] == 4 and metrics["test_objects"] == 4 and metrics["train_images"] == 4
    assert 0 <= metrics["test_ap50"] <= 1 and {"test_ap", "learned_parameters", "digest"} <= metrics.keys()
    assert "test_per_class" not in metrics and metrics["test_ap50"] == pytest.approx(float(cells[-1][5]), abs=1e-6)


def test_a_runs_detector_comes_back_and_draws_nothing_of_the_callers(trained) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = load_detector(trained)
    assert torch.equal(torch.get_rng_state(), before)
    weights = load_file(trained.folder / "weights.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.inner.state_dict().items())
    assert not model.training and model.spec.class_names == ("odd", "even") and model.spec.size == (64, 64)
    again = create_detector(
        "rtdetr:mobilenetv3_small_050", weights=trained.folder / "weights.safetensors", size=64, **RTDETR
    ).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images)[0].scores, again(images)[0].scores)
    assert again.spec.class_names == ("odd", "even")
    with pytest.raises(NotApplicable, match="is a run of a detector, and a classifier is needed"):
        load(trained)


def test_what_is_saved_is_the_moving_average_of_all_that_moved(trained) -> None:
    spec = build.image_spec(TINY, scenes(TINY, "train"))
    begun = detecting.detector(TINY, spec).inner.state_dict()
    saved = load_file(trained.folder / "weights.safetensors")
    still = {name for name, tensor in begun.items() if torch.equal(tensor, saved[name])}
    moved = begun.keys() - still
    assert any("backbone" in name and "running_mean" in name for name in moved)
    assert any("backbone" in name and name.endswith("bn1.weight") for name in moved)  # norms learn
    assert any("bbox_embed" in name for name in moved) and any("encoder" in name for name in moved)


def test_the_rates_and_the_decay_of_each_group() -> None:
    spec = build.image_spec(TINY, scenes(TINY, "train"))
    model, _ = build.trainable_model(TINY, spec)
    made = optim.make_optimizer(TINY.optimizer, build.learned(TINY, model))
    names = {id(parameter): name for name, parameter in model.inner.named_parameters()}
    found = set()
    for group in made.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            inside = name.startswith("model.backbone.model.")
            assert group["lr"] == (1e-4 if inside else 1e-3)
            assert group["weight_decay"] == (1e-4 if parameter.ndim > 1 else 0)
            found.add((inside, parameter.ndim > 1))
    assert not names and len(found) == 4
    state = State(model, made)
    assert [group["initial_lr"] for group in state.optimizer.param_groups] == [one["lr"] for one in made.param_groups]


def test_the_backbone_of_torchvisions_detectors_and_no_classifiers() -> None:
    ssd = create_detector("torchvision:ssdlite320_mobilenet_v3_large", class_names=("a",))
    assert detecting.backbone(ssd) is ssd.inner.backbone
    with pytest.raises(PassbandError, match="is the rate of a detector's backbone; leave it out"):
        plain = Recipe.of({"optimizer": {"name": "sgd", "backbone": 1e-3}})
        build.learned(plain, _Wrapped())
    for rate in (0, -1, "x", math.inf):
        with pytest.raises(PassbandError, match="a learning rate above 0"):
            optim.apart([nn.Parameter(torch.ones(1))], nn.Linear(1, 1), rate)


class _Wrapped(nn.Module):
    """What a classifier has that the optimizer asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)


class _Stub:
    """One batch an epoch, of the numbers that a training is to follow."""

    def __len__(self) -> int:
        return 1

    def epoch(self, number: int, start: int = 0):
        yield from [(torch.full((1, 1), 2.0), torch.zeros(1))][start:]

    def count(self, step: int) -> int:
        return 1


def test_clipping_and_the_average_with_warm_up_by_hand(tmp_path, monkeypatch) -> None:
    """f = 3wx, x = 2: the gradient is 6 and is cut to 0.5; w goes 1, 0.9, 0.8 by steps of 0.2 · 0.5.

    The average keeps 0.9 · (1 - e^(-t/2)) of itself at step t, which begins at 1.
    """
    from lightning_fabric import Fabric
    from timm.utils import ModelEmaV3

    from passband.train.ranks import Ranks

    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.2), ModelEmaV3(model, decay=0.9))
    (tmp_path / "log.csv").touch()
    plan = fit.Plan(
        epochs=2, step=lambda model, images, targets, number: (3 * model(images).sum(), None), score=lambda *_: None,
        schedule=lambda epoch, epochs: 1.0, evaluate=lambda model: 0.0, save=lambda: None,
        kept=lambda: "", end_epoch=lambda epoch: "",
        log=tmp_path / "log.csv", description="", clip=0.5, average=TINY.ema.at,
    )  # fmt: skip
    fit.fit(Ranks(Fabric(accelerator="cpu", devices=1)), state, _Stub(), plan)
    assert model.weight.item() == pytest.approx(0.8, abs=1e-5)
    average = 1.0
    for step, weight in ((1, 0.9), (2, 0.8)):
        share = 0.9 * (1 - math.exp(-step / 2))
        average = share * average + (1 - share) * weight
    assert state.ema.module.weight.item() == pytest.approx(average, abs=1e-5)
    assert "nan" not in (tmp_path / "log.csv").read_text()


def test_half_precision_learns_too(tmp_path) -> None:
    """Fabric converts what a model is called with, objects too."""
    recipe = TINY.with_settings(["precision=bf16", "epochs=1", "pieces=null", "data.part=2"])
    found = train(recipe, compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path)
    assert math.isfinite(float(log(found)[1].split(",")[3])) and found.metrics["train_images"] == 2


def test_a_set_whose_images_hold_nothing_has_no_score(tmp_path, monkeypatch) -> None:
    none = Objects(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool), torch.zeros(0)
    )
    monkeypatch.setattr(detecting, "scenes", lambda *given: replace(scenes(*given), objects=(none,) * 4))
    found = train(TINY.with_settings(["epochs=1"]), compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path)
    assert found.metrics["test_objects"] == 0 and found.metrics["test_ap50"] is None
    assert math.isfinite(float(log(found)[1].split(",")[3]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.name=resnet18"], "unknown detector 'resnet18'"),
        (["data.size=40"], "a multiple of 32 pixels; got 40"),
        (["augment=[{name: crop}]"], "unknown augmentation of scenes 'crop'"),
        (["data.part=9"], "data.part is 9, and few has 4 images"),
        (["optimizer.backbone=-1"], "optimizer.backbone is a learning rate above 0"),
        (["model.size=64"], "leave model.size out"),
        (["model.weights=x"], "leave model.weights out"),
        (["augment=[{name: multi-scale, sizes: [32]}]", "model.queries=30"], "30 queries among 21 places"),
        (["model.queries=85"], "85 queries among 84 places"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        train(TINY.with_settings(settings), compute=EVERY_STEP, runs=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("attack.name=pgd", "leave attack out"),
        ("scheme.name=trades", "leave scheme out"),
        ("quantize.bits=4", "leave quantize out"),
        ("normalize=none", "leave normalize out"),
        ("data.shuffle_labels=true", "leave data.shuffle_labels out"),
        ("data.view.name=band_limited", "leave data.view out"),
        ("learn=channels", "set learn to all, not channels"),
        ("early_stop={}", "leave early_stop out"),
        ("ema.warmup=0", "'ema.warmup' cannot be 0"),
        ("clip=0", "'clip' cannot be 0"),
    ],
)
def test_recipes_that_do_not_fit(settings, words) -> None:
    with pytest.raises(PassbandError, match=words):
        TINY.with_settings([settings])


def test_a_batch_in_pieces_gathers_their_losses() -> None:
    """Each piece's own losses, weighted by its images."""
    four = scenes(TINY, "train").objects
    assert [len(part) for part in Targets(four).tensor_split(2)] == [2, 2]
    pieces = list(fit.cut(torch.rand(4, 3, 8, 8), Targets(four), 2))
    asked = [len(targets) for _, targets in pieces]
    assert asked == [2, 2] and pieces[1][1][1] is four[3]
