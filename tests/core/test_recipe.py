from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from passband.core.errors import PassbandError
from passband.core.recipe import Recipe

# A default that is not null never changes: these digests are for good. A mended training bug raises `revision`.
COMMITTED = {
    "defaults": ({}, "0a39cb9d2937d758"),
    "channels": (
        {"learn": "channels", "data": {"name": "fashion-mnist"}, "epochs": 3, "seed": 1},
        "ce666fbc12b4361b",
    ),
    "static": (
        {"filters": "box", "learn": "channels", "data": {"name": "photos", "part": 1024}},
        "22b4357462560c11",
    ),
    "adversarial": (
        {"attack": {"name": "pgd", "eps": "8/255", "alpha": "2/255", "steps": 7}},
        "86b660d02858d0a1",
    ),
    "adamw": (
        {
            "model": {"name": "conv_mixer", "hidden": 64, "depth": 4},
            "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 5e-3},
            "schedule": {"name": "piecewise-linear"},
            "ema": {"decay": 0.99},
            "precision": "bf16",
            "normalize": "none",
        },
        "76ec5a234e9185fc",
    ),
    "trades": ({"scheme": {"name": "trades", "beta": 6.0}, "attack": {"name": "tpgd"}}, "27dacbd76ba133cc"),
    "free": ({"scheme": {"name": "free", "eps": "8/255"}, "early_stop": {}}, "69f938bad42f52fc"),
    "unshuffle": (
        {"task": "unshuffle", "model": {"name": "conv_mixer_pixels", "width": 32, "depth": 4}, "augment": []},
        "beba83c0381a92ec",
    ),
    "detection": (
        {
            "task": "detection",
            "model": {"name": "rtdetr:spartan_xt", "neck": "r18"},
            "data": {"name": "coco128", "size": 640},
            "augment": [{"name": "iou-crop"}, {"name": "flip"}, {"name": "multi-scale"}],
            "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 1e-4, "backbone": 1e-5, "decay": "kernels"},
            "clip": 0.1,
            "ema": {"decay": 0.9999, "warmup": 2000},
            "batch": 4,
        },
        "8ab521273ff764b6",
    ),
}


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_recipes_keep_their_digests(name: str) -> None:
    fields, digest = COMMITTED[name]
    assert Recipe.of(fields).digest("data")[:16] == digest


@pytest.mark.parametrize(
    "change",
    [
        "model.depth=2", "model.name=cifar_resnet", "filters=box", "smooth.sigma=1", "separate.multiplier=3",
        "learn=spatial", "learn_options.both=learn", "data.name=mnist", "data.size=28", "data.part=10",
        "data.view.name=band_limited", "data.shuffle_labels=true", "normalize=none", "augment=[]", "attack.name=pgd",
        "optimizer.lr=0.2", "schedule.name=constant", "epochs=11", "batch=64", "ema.decay=0.9", "precision=bf16",
        "seed=1", "revision=2", "scheme.name=trades", "early_stop={}", "task=unshuffle", "quantize.bits=4",
        "pieces=2", "clip=0.1", "ema.warmup=10", "sync_batchnorm=true", "data.stream=true",
    ],
)  # fmt: skip
def test_every_changed_field_changes_the_digest(change: str) -> None:
    assert Recipe().with_settings([change]).digest("data") != Recipe().digest("data")


@pytest.mark.parametrize("change", ["sync_batchnorm=false", "data.stream=false"])
def test_no_is_the_same_as_nothing(change: str) -> None:
    assert Recipe().with_settings([change]) == Recipe()


def test_every_field_is_covered_by_the_changes_above() -> None:
    marker = test_every_changed_field_changes_the_digest.pytestmark[0]  # type: ignore[attr-defined]
    named = {change.partition("=")[0].partition(".")[0] for change in marker.args[1]}
    assert named == set(Recipe.model_fields)


def test_equal_recipes_have_equal_digests_however_they_are_written() -> None:
    a = Recipe.of({"attack": {"name": "pgd", "eps": "8/255"}, "optimizer": {"name": "sgd", "lr": "1e-1"}})
    b = Recipe.of({"attack": {"name": "pgd", "eps": 8 / 255}, "optimizer": {"name": "sgd", "lr": 0.1}})
    assert a.digest("data") == b.digest("data")
    assert a.digest("data") != a.digest("other data")


def test_a_folder_is_known_by_its_content_not_its_path() -> None:
    here = Recipe().with_settings(["data.name=folder:/a"])
    there = Recipe().with_settings(["data.name=folder:/b"])
    assert here.digest("content") == there.digest("content") != here.digest("other content")


def test_settings_mean_the_same_in_any_order() -> None:
    settings = ["attack.eps=1/255", "attack.name=pgd", "optimizer.lr=0.001", "optimizer.name=adamw"]
    forth, back = Recipe().with_settings(settings), Recipe().with_settings(settings[::-1])
    assert forth == back and forth.attack is not None
    assert forth.attack.arguments["eps"] == 1 / 255 and forth.optimizer.arguments == {"lr": 0.001}


def test_text_reads_back(tmp_path) -> None:
    recipe = Recipe().with_settings(
        ["attack.name=pgd", "attack.eps=8/255", "normalize.mean=[0.5]", "normalize.std=[1]"]
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.text())
    assert Recipe.read(path) == recipe


@given(st.integers(1, 10**6), st.sampled_from(["all", "channels", "spatial"]), st.integers(0, 10**9))
def test_settings_and_fields_mean_the_same(epochs: int, learn: str, seed: int) -> None:
    settings = Recipe().with_settings([f"epochs={epochs}", f"learn={learn}", f"seed={seed}"])
    assert settings == Recipe.of({"epochs": epochs, "learn": learn, "seed": seed})
    assert json.loads(json.dumps(settings.plain())) == settings.plain()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["epoch=3"], "did you mean 'epochs'"),
        (["data.nam=x"], "did you mean 'name'"),
        (["epochs=x"], "'epochs' cannot be 'x'"),
        (["learn=chans"], "'learn' cannot be 'chans'"),
        (["epochs"], "NAME=VALUE"),
        (["early_stop.dorp=0.1"], "did you mean 'drop'"),
        (["early_stop.drop=20"], "'early_stop.drop' cannot be 20"),
        (["model.depth.x=3"], "holds no further fields"),
        (["quantize=4"], "'quantize' cannot be 4"),
        (["task=unshufle"], "'task' cannot be 'unshufle'"),
        (["task=unshuffle", "attack.name=pgd"], "recipe: task unshuffle has no classes to attack; leave attack null"),
        (["task=unshuffle", "scheme.name=free"], "leave scheme null"),
        (["task=unshuffle", "early_stop={}"], "leave early_stop null"),
        (["task=unshuffle", "data.shuffle_labels=true"], "reads no labels; leave data.shuffle_labels false"),
        (["epochs=[1"], "not YAML"),
    ],
)
def test_mistakes_say_what_to_do(settings: list[str], words: str) -> None:
    with pytest.raises(PassbandError, match="(?s)" + words.replace("[", r"\[")) as caught:
        Recipe().with_settings(settings)
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_recipe(tmp_path) -> None:
    for text, words in [
        ("[1]", "holds no recipe"),
        ("a: [", "is not YAML"),
        ("epoch: 3", "did you mean 'epochs'"),
    ]:
        path = tmp_path / "r.yaml"
        path.write_text(text)
        with pytest.raises(PassbandError, match=words):
            Recipe.read(path)
    with pytest.raises(PassbandError, match="there is no recipe"):
        Recipe.read(tmp_path / "none.yaml")


def test_a_parts_own_null_is_kept() -> None:
    """PGD with alpha null steps by ε/4, and by its default where nothing is said: two trainings, two digests."""
    said = Recipe.of({"attack": {"name": "pgd", "eps": 0.1, "alpha": None}})
    silent = Recipe.of({"attack": {"name": "pgd", "eps": 0.1}})
    assert said.digest("d") != silent.digest("d")
    again = Recipe.of(yaml.safe_load(said.text()))
    assert again == said and again.with_settings(["seed=1"]).attack.arguments["alpha"] is None
