"""Probes whose pieces several processes measure: the same numbers, and nothing measured twice or lost."""

from __future__ import annotations

import inspect
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import passband
from passband.attacks import pieces
from passband.core.answer import Answer
from passband.core.errors import PassbandError
from passband.core.results import Gallery, Result
from passband.core.spec import ImageSpec
from passband.data.dataset import ImageSet
from passband.models.wrap import Classifier
from passband.probes import PROBES
from passband.sweeps import sharding
from passband.sweeps.answers import Work
from passband.sweeps.probing import prepared_there

SIDE, IMAGES = 8, 50
"""Pieces of 20 images and more: two of 21 in batches of 7, and a short one of 8."""


def network() -> Classifier:
    torch.manual_seed(0)
    inner = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    return Classifier(
        inner, ImageSpec(size=(SIDE, SIDE), channels=3, classes=3, mean=(0.5,), std=(0.5,), source="given")
    ).eval()


def restorer() -> Classifier:
    torch.manual_seed(0)
    spec = ImageSpec(size=(SIDE, SIDE), channels=3, classes=0, mean=None, std=None, source="given")
    return Classifier(nn.Conv2d(3, 3, 3, padding=1), spec).eval()


def images(number: int = IMAGES) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, SIDE, SIDE, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, rng.integers(0, 3, number), ("a", "b", "c"), "0" * 64)


def same(first: tuple[Result, ...], second: tuple[Result, ...]) -> None:
    for one, other in zip(first, second, strict=True):
        parts = {"arrays", "pictures"}
        assert np.array_equal(getattr(one, "values", 0), getattr(other, "values", 0), equal_nan=_floats(one))
        spoken = [result.model_dump(exclude=parts | {"values"}) for result in (one, other)]
        for words in spoken:
            words["how"].pop("command", None)  # it names the folder and the devices
        assert str(spoken[0]) == str(spoken[1])
        assert one.arrays.keys() == other.arrays.keys()
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, other.arrays[name], err_msg=f"{one.name} {name}")
        if isinstance(one, Gallery):
            assert isinstance(other, Gallery) and len(one.pictures) == len(other.pictures)
            for shown, again in zip(one.pictures, other.pictures, strict=True):
                assert np.array_equal(shown.image, again.image) and shown.data == again.data


def _floats(result: Result) -> bool:
    return np.issubdtype(np.asarray(getattr(result, "values", 0)).dtype, np.floating)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passband.probes.kept.COUNT", 20)
    monkeypatch.setattr("passband.attacks.shards.COUNT", 20)


CASES: dict[str, tuple[Callable[[], Classifier], dict[str, Any], int]] = {
    "activation-spectrum": (network, {}, 8),
    "activations": (network, {"attack": "fgsm", "batch": 20}, 3),
    "bands": (network, {"examples": 25}, 3),
    "disagreement": (network, {}, 3),
    "filtered": (network, {"steps": 2}, 2),
    "gradients": (network, {}, 3),
    "harden": (
        network,
        {"edits": ("smooth-first",), "strengths": (0.1,), "attacked": 22, "queried": 4, "queries": 2},
        12,
    ),
    "heatmap": (network, {"count": 20, "size": 3}, 3),
    "interactions": (network, {"count": 3, "grid": 3, "pairs": 2, "contexts": 2}, 3),
    "perturbation": (network, {"steps": 2, "examples": 25}, 6),
    "reliance": (network, {"by": "svd"}, 3),
    "robustness": (network, {"steps": 2, "eps": (8 / 255,)}, 6),
    "saliency": (network, {"examples": 25}, 2),
    "similarity": (network, {"batch": 20}, 3),
    "unshuffle": (restorer, {"examples": 25}, 6),
}
"""By probe: a model, options, and at least so many pieces."""


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("probe", CASES)
def test_pieces_of_two_workers_make_the_results_of_one(
    probe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, options, least = CASES[probe]
    batches = images().batches(7)
    ask = partial(PROBES[probe], make(), batches, **options)
    expected = ask()
    keep, claim, made, turn = pieces._keep, pieces._claimed, [], count()

    def kept(folder: Path, key: str, found: Any) -> None:
        made.append(key)
        keep(folder, key, found)

    def in_turn(path: Path, wait: bool) -> Any:
        # Every second piece is in another worker's hand, which will not finish it.
        return claim(path, wait) if wait or next(turn) % 2 == 0 else nullcontext(False)

    monkeypatch.setattr(pieces, "_keep", kept)
    monkeypatch.setattr(pieces, "_claimed", in_turn)
    with pytest.raises(pieces.Unfinished, match="give the same command again"):
        ask(resume=tmp_path)
    first = len(made)
    monkeypatch.setattr(pieces, "_claimed", claim)
    same(ask(resume=tmp_path), expected)
    assert 0 < first < len(made) and len(made) == len(set(made)) >= least
    assert not list(tmp_path.glob("*.lock"))
    whole = len(made)
    same(ask(resume=tmp_path), expected)
    assert len(made) == whole


def test_every_probe_whose_work_grows_with_the_images_has_pieces() -> None:
    takes = {name for name in PROBES if "resume" in inspect.signature(PROBES[name]).parameters}
    assert takes == {*CASES, "detection"}
    assert set(PROBES) - takes == {"cost", "envelope", "kernels"}  # of these, none asks about a whole set


@pytest.mark.usefixtures("small_pieces")
def test_another_set_other_targets_other_options_take_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep, made = pieces._keep, []
    monkeypatch.setattr(pieces, "_keep", lambda *given: (made.append(given[1]), keep(*given)))
    batches = images().batches(7)
    changes = (
        (batches, {}), (batches.cut(10), {}), (batches.subset(np.arange(49)), {}), (batches, {"radii": (3.0,)}),
        (batches.with_targets(1 - batches.targets.clamp(max=1), "label"), {}),
    )  # fmt: skip
    for some, options in changes:
        before = len(made)
        PROBES["bands"](network(), some, resume=tmp_path, **options)
        assert len(made) - before == 3
    PROBES["bands"](network(), batches, resume=tmp_path)
    assert len(made) == 15


def test_a_piece_in_hand_is_waited_for(tmp_path: Path) -> None:
    kept = pieces.Pieces(tmp_path, "model")
    make = pieces.Found({"x": np.arange(3)})
    first = kept.all([("piece", lambda: make)])
    held = sorted(path.name for path in tmp_path.iterdir())
    assert len(held) == 1 and held[0].endswith(".npz")
    again = kept.all([("piece", lambda: pytest.fail("measured again")), ("piece", lambda: pytest.fail("twice"))])
    assert all(np.array_equal(one.arrays["x"], first[0].arrays["x"]) for one in again) and len(again) == 2


def test_places() -> None:
    assert sharding.places("cpu", 1, 3) == sharding.Places(("cpu",), 3)
    before = torch.get_num_threads()
    assert sharding.places("cpu", 3, 0) == sharding.Places(("cpu",) * 3, max(1, before // 3))
    for device, number, words in (
        ("cpu", 0, "1 or more"), ("cuda:1", 2, "give --device cuda"), ("mps", 2, "a single device"),
        ("cuda", 1000, "ask for as many"),
    ):  # fmt: skip
        with pytest.raises(PassbandError, match=words):
            sharding.places(device, number, 0)
    with sharding.threads_set(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def folder_of(path: Path, number: int) -> Path:
    rng = np.random.default_rng(0)
    for at in range(number):
        place = path / "test" / "ab"[at % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / f"{at}.png")
    return path


def two_classes() -> Classifier:
    model = network()
    model.inner[-1] = nn.Linear(16, 2)
    spec = ImageSpec(
        size=(SIDE, SIDE), channels=3, classes=2, class_names=("a", "b"), mean=(0.5,), std=(0.5,), source="given"
    )
    return Classifier(model.inner, spec).eval()


@pytest.mark.slow
def test_two_processes_answer_as_one_and_what_does_not_apply_is_said_once(tmp_path: Path) -> None:
    data, model = f"folder:{folder_of(tmp_path / 'photos', 30)}", two_classes()
    # One piece for two workers: one of them has nothing to do but to wait.
    ask = partial(passband.probe, model, data, only="bands,heatmap,kernels", options=["heatmap.size=3"], batch=8)
    alone = ask(out=tmp_path / "one", threads=1)
    shared = ask(out=tmp_path / "two", devices=2, threads=1)
    same(tuple(alone.results), tuple(shared.results))
    assert not list((tmp_path / "two").glob("kept/*/parts"))


def dies(source: str, *, device: str) -> Any:
    if source == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise PassbandError("the weights of net.pt hold NaN; load others")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        pytest.param("killed", r"was ended \(SIGKILL\).*give the same command again", marks=pytest.mark.trials),
        pytest.param("refuses", "hold NaN", marks=pytest.mark.trials),
    ],
)
def test_a_worker_that_fails_ends_all_in_one_line(how: str, words: str, tmp_path: Path) -> None:
    asked = prepared_there(two_classes(), f"folder:{folder_of(tmp_path / 'photos', 4)}", device="cpu")
    before = time.monotonic()
    with (
        pytest.raises(PassbandError, match=words) as caught,
        sharding.crew(partial(dies, how), sharding.Places(("cpu", "cpu"), 1), asked) as share,
    ):
        assert share is not None
        share(Work("bands", {}, "float32", tmp_path / "parts"))
    assert "\n" not in str(caught.value) and time.monotonic() - before < 120


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    model = two_classes()
    model.inner.register_forward_hook(lambda *_: None)
    data = f"folder:{folder_of(tmp_path / 'photos', 4)}"
    with pytest.raises(PassbandError, match="cannot be sent") as caught:
        passband.probe(model, data, only="bands", out=tmp_path / "out", devices=2)
    assert "\n" not in str(caught.value)


KILLS = 20


@pytest.mark.trials
def test_a_probe_killed_at_random_moments_ends_as_one_left_alone(tmp_path: Path) -> None:
    """Kill the command or one of its workers, give it again, and compare whatever was finished."""
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make():\n    torch.manual_seed(0)\n    return nn.Sequential("
        "nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2))\n"
    )
    folder_of(tmp_path / "photos", 3000)
    words = [
        sys.executable, "-m", "passband", "probe", "net.py:make", "--data", "folder:photos", "--size", str(SIDE),
        "--mean", "0.5", "--std", "0.5", "--only", "bands,perturbation", "--set", "perturbation.steps=10",
        "--device", "cpu", "--threads", "1",
    ]  # fmt: skip
    subprocess.run([*words, "--out", "whole"], cwd=tmp_path, check=True, capture_output=True)
    expected = Answer.load(tmp_path / "whole").results
    began = time.monotonic()
    shared = [*words, "--devices", "2", "--out", "killed"]
    subprocess.run(shared, cwd=tmp_path, check=True, capture_output=True)
    lasts, rng = time.monotonic() - began, random.Random(0)
    kills = finished = 0
    while True:
        if (tmp_path / "killed" / "results.json").exists():
            same(tuple(Answer.load(tmp_path / "killed").results), tuple(expected))
            finished += 1
            if kills >= KILLS:
                break
            shutil.rmtree(tmp_path / "killed")
        with subprocess.Popen(shared, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
            try:
                running.wait(rng.uniform(0, lasts) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                _kill_one(running.pid, rng)
                kills += 1
                running.wait()
                print(f"kill {kills} after {time.monotonic() - began:.0f} s, {finished} answers", flush=True)
            assert running.stderr is not None
            said = running.stderr.read().decode()
            assert "Traceback" not in said, said
    print(f"{kills} kills, {finished} answers, {time.monotonic() - began:.0f} s")


def _kill_one(parent: int, rng: random.Random) -> None:
    """Kill a command, or every third time one of the workers that it has by then."""
    children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    os.kill(int(rng.choice(children)) if children and rng.random() < 1 / 3 else parent, signal.SIGKILL)
