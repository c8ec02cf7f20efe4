from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import passband
from passband.core.band import Band
from passband.core.compute import Compute
from passband.core.environment import versions
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.core.results import Scalar
from passband.core.scale import Scale
from passband.core.store import runs_folder
from passband.data import catalog
from passband.data.views import band_limited, part, shuffle_labels
from passband.probes import PROBES
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import subject
from passband.train.build import bare_model

TINY = Recipe.of(
    {
        "model": {"name": "separable_resnet", "depth": 1, "width": 4, "multiplier": 1},
        "data": {"name": "photos", "part": 64},
        "epochs": 2,
        "batch": 32,
    }
)


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    monkeypatch.setenv("PASSBAND_RUNS", str(tmp_path / "runs"))
    return Lab(Scale.SMOKE, "passband test", compute=Compute(device="cpu"), limit=60)


def test_a_probe_can_be_followed_through_a_training(lab: Lab) -> None:
    tracked = lab.track(TINY, "bands", {"radii": (8,), "degrees": (16,), "examples": 0})
    assert list(tracked) == [1, 2]
    last = lab.probe(lab.train(TINY), "bands", {"radii": (8,), "degrees": (16,), "examples": 0})
    clean = [found["bands.clean"] for found in (*tracked.values(), last)]
    assert all(isinstance(one, Scalar) and one.n == 60 for one in clean)
    assert clean[0].how["weights"] != clean[1].how["weights"] == clean[2].how["weights"]


SHUFFLED = TINY.with_settings(
    ["data.shuffle_labels=true", "data.view={name: band_limited, cutoff: 8}", "augment=[{name: flip}]", "epochs=1"]
)


def test_a_probe_of_the_training_split_sees_what_was_learned_from_without_augmentation(lab: Lab) -> None:
    run = lab.train(SHUFFLED)
    asked = lab.subject(run)
    learned, few = (
        Lab(Scale.SMOKE, "x", compute=lab.compute, limit=limit).images(asked, run, "train") for limit in (None, 20)
    )
    photos = catalog.load("photos", "train", size=(32, 32))
    expected = shuffle_labels(band_limited(part(photos, 64), Band.disc(8.0)))
    assert learned.count == 64 and few.count == 20 and learned.measure == "accuracy"
    for given, wanted in ((learned, expected.take(64)), (few, expected.take(20))):
        assert given.dataset.fingerprint == wanted.fingerprint
        images, labels = next(iter(given))
        whole, targets = next(iter(wanted.batches()))
        assert torch.equal(images, whole) and torch.equal(labels, targets)
    assert learned.targets.tolist() != part(photos, 64).take(64).labels.tolist()
    options = {"radii": (8,), "degrees": (), "examples": 0}
    splits = {split: lab.probe(run, "bands", options, split=split)["bands.clean"] for split in ("train", "test")}
    assert splits["train"].how["fingerprint"] != splits["test"].how["fingerprint"]
    assert np.array_equal(splits["train"].arrays["targets"], lab.images(asked, run, "train").targets.numpy())
    tracked = lab.track(SHUFFLED, "bands", options, epochs=(1,), split="train")
    assert list(tracked) == [1] and tracked[1]["bands.clean"].value == splits["train"].value


def test_an_answer_is_kept_for_its_weights_data_and_options(lab: Lab, monkeypatch) -> None:
    run = lab.train(TINY)
    asked: list[dict] = []
    probe = PROBES["bands"]

    def counted(model, batches, *, radii: tuple[float, ...] | None = None, examples: int = 12):
        asked.append({"radii": radii})
        return probe(model, batches, radii=radii, examples=examples)

    monkeypatch.setitem(PROBES._parts, "bands", counted)
    for radii in ((4,), (4,), (8,), (4,)):
        lab.probe(run, "bands", {"radii": radii, "examples": 0})
    assert [call["radii"] for call in asked] == [(4,), (8,)]
    Lab(Scale.SMOKE, "x", compute=lab.compute, limit=30).probe(run, "bands", {"radii": (4,), "examples": 0})
    assert len(asked) == 3


def test_times_belong_to_torchs_version_and_other_answers_do_not(lab: Lab, monkeypatch) -> None:
    run = lab.train(TINY)
    made: list[str] = []

    def timed(model, batches):
        made.append("timed")
        return (Scalar(name="seconds", title="Seconds", value=1.0),)

    def untimed(model, batches):
        made.append("untimed")
        return (Scalar(name="seconds", title="Seconds", value=1.0),)

    monkeypatch.setitem(PROBES._parts, "timed", timed)
    monkeypatch.setitem(PROBES._parts, "untimed", untimed)
    monkeypatch.setattr("passband.sweeps.answers.TIMED", {"timed"})
    known = versions()
    for version in ("1.0", "1.0", "2.0"):
        monkeypatch.setattr("passband.sweeps.answers.versions", lambda version=version: known | {"torch": version})
        lab.probe(run, "timed")
        lab.probe(run, "untimed")
    assert made == ["timed", "untimed", "timed"]


def test_an_untrained_model_is_as_its_training_found_it_and_costs_no_chance(lab: Lab) -> None:
    run = lab.train(TINY)
    drawn = torch.get_rng_state()
    begun = lab.untrained(run)
    assert torch.equal(drawn, torch.get_rng_state())
    with torch.random.fork_rng():
        expected = bare_model(run.recipe, begun.model.spec).state_dict()
    found = begun.model.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    assert begun.digest != lab.subject(run).digest and begun.name.endswith(", untrained")


def test_what_was_made_once_is_kept_by_all_that_decides_it(lab: Lab, monkeypatch) -> None:
    made: list[int] = []

    def make() -> dict[str, list[float]]:
        made.append(len(made))
        return {"seconds": [float(made[-1]), 0.5]}

    first = lab.kept("steps", {"recipe": "a", "rounds": 2}, make)
    assert first == {"seconds": [0.0, 0.5]}
    assert lab.kept("steps", {"rounds": 2, "recipe": "a"}, make) == first and made == [0]
    assert lab.kept("steps", {"recipe": "b", "rounds": 2}, make) == {"seconds": [1.0, 0.5]}
    assert lab.kept("layers", {"recipe": "a", "rounds": 2}, make)["seconds"][0] == 2
    monkeypatch.setattr("passband.sweeps.lab.hardware_class", lambda device: "another processor")
    assert lab.kept("steps", {"recipe": "a", "rounds": 2}, make)["seconds"][0] == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert lab.kept("steps", {"recipe": "a", "rounds": 2}, make)["seconds"][0] == 4


def test_what_could_not_be_made_is_not_kept_and_what_is_damaged_is_named(lab: Lab) -> None:
    def stop() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.kept("steps", {}, stop)
    with pytest.raises(ValueError, match="JSON"):
        lab.kept("steps", {}, lambda: float("nan"))
    assert lab.kept("steps", {}, lambda: 1.5) == 1.5
    (path,) = runs_folder().glob("measured/steps-*/kept.json")
    path.write_text(path.read_text()[:-3])
    with pytest.raises(PassbandError, match=r"is damaged .* remove it"):
        lab.kept("steps", {}, lambda: 1.5)


def test_a_run_is_a_model_by_its_folder_or_the_head_of_its_digest(lab: Lab) -> None:
    run = lab.train(TINY)
    by_folder, by_digest = subject(str(run.folder)), subject(run.digest[:8])
    assert by_folder.digest == by_digest.digest
    assert "learn all" in by_folder.name and by_folder.model.spec.source.startswith("measured on")
    with pytest.raises(PassbandError, match="brings its own"):
        subject(run.digest[:8], mean=(0.5,), std=(0.5,))


def test_weights_that_are_not_loaded_are_the_same_each_time() -> None:
    before = torch.get_rng_state()
    names = [subject("resnet10t", pretrained=False).digest for _ in range(2)]
    assert names[0] == names[1]
    assert torch.equal(before, torch.get_rng_state())


def test_a_module_is_probed_from_python(tmp_path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 15)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).amax((2, 3)))

    with pytest.raises(PassbandError, match="--mean and --std"):
        passband.load(Net())
    model = passband.load(Net(), size=32, mean=(0.5,), std=(0.25,), device="cpu")
    answer = passband.probe(model, "photos", only="bands,kernels", limit=20, out=tmp_path)
    assert answer["bands.clean"].n == 20
    assert (tmp_path / "report.html").exists()
