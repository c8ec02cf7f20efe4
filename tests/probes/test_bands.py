"""The probe `bands`: what it reports, on what, and that it leaves the model alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.answer import Answer
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.results import Curve, Gallery, Scalar
from passband.data.dataset import ImageSet, permutation
from passband.frequency.filters import high, low, rescale
from passband.probes import PROBES
from passband.probes.bands import bands
from passband.tasks.classification import wilson


def images(side: int = 16, count: int = 30, classes: int = 3, labels: bool = True) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    names = tuple("abcdefgh"[:classes])
    return ImageSet("noise", pixels, rng.integers(0, classes, count) if labels else None, names, "0" * 64)


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )  # fmt: skip


def by_name(results: tuple) -> dict:
    return {result.name: result for result in results}


def test_numbers_are_those_of_the_copies_made_one_by_one() -> None:
    model, data = network().eval(), images()
    found = by_name(bands(model, data.batches(7), radii=(2.0, 5.0)))
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(data.labels)
    for kind, cut in (("LFC", low), ("HFC", high)):
        for row, radius in enumerate((2, 5)):
            with torch.no_grad():
                probabilities = model(rescale(cut(pixels, Band.disc(radius)), "max")).softmax(1)
            correct = probabilities.argmax(1) == labels
            assert np.array_equal(found["bands.accuracy"].arrays[f"{kind}.correct"][row], correct)
            line = next(series for series in found["bands.accuracy"].series if series.name == kind)
            share = float(correct.double().mean())
            assert (line.values[row], line.low[row], line.high[row]) == (share, *wilson(int(correct.sum()), 30))
            sure = probabilities.gather(1, labels[:, None])[:, 0].numpy()
            np.testing.assert_allclose(found["bands.confidence"].arrays[kind][row], sure, atol=1e-5)
            line = next(series for series in found["bands.confidence"].series if series.name == kind)
            assert line.values[row] == pytest.approx(sure.mean(), abs=1e-5)
            assert line.high[row] - line.low[row] == pytest.approx(2 * 1.96 * sure.std(ddof=1) / 30**0.5, rel=1e-3)


def test_the_clean_score_carries_its_interval_and_every_sample() -> None:
    model, data = network(), images()
    clean = by_name(bands(model, data.batches(7)))["bands.clean"]
    with torch.no_grad():
        said = model.eval()(torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255).argmax(1).numpy()
    assert isinstance(clean, Scalar) and clean.n == 30
    assert np.array_equal(clean.arrays["predicted"], said)
    assert clean.value == float((said == data.labels).mean())
    assert (clean.low, clean.high) == wilson(int((said == data.labels).sum()), 30)


@pytest.mark.parametrize(
    ("side", "radii", "degrees"),
    [
        (32, (4, 8, 12, 16), (16, 20, 24, 28, 32)),
        (28, (4, 7, 10, 14), (14, 18, 20, 24, 28)),
        (224, (28, 56, 84, 112), (112, 140, 168, 196, 224)),
    ],
)
def test_cut_offs_follow_the_size_of_the_images(side: int, radii: tuple, degrees: tuple) -> None:
    found = by_name(bands(network(), images(side, count=2).batches(2), examples=0))
    assert found["bands.accuracy"].x.values == radii
    assert found["bands.low_pass"].x.values == degrees
    assert "bands.examples" not in found


def test_batch_statistics_are_those_of_each_batch_of_copies() -> None:
    model, data = network(), images()
    with torch.no_grad():
        model[1].running_mean.fill_(0.7)
        model[1].running_var.fill_(0.02)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = by_name(bands(model, data.batches(30), radii=(3.0,), statistics="batch", batch=10, examples=2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    norm = nn.BatchNorm2d(8, track_running_stats=False)  # in evaluation mode it takes the batch's own
    norm.load_state_dict({"weight": model[1].weight, "bias": model[1].bias})
    stateless = nn.Sequential(model[0], norm, *model[2:]).eval()
    copies = {("bands.clean", "predicted"): pixels} | {
        ("bands.accuracy", f"{kind}.predicted"): rescale(cut(pixels, Band.disc(3)), "max")
        for kind, cut in (("LFC", low), ("HFC", high))
    }
    order = permutation(len(data), None, 0)  # a sorted set's batches would hold one class each
    for (name, array), copy in copies.items():
        with torch.no_grad():
            said = torch.cat([stateless(part).argmax(1) for part in copy[order].split(10)])
        assert np.array_equal(found[name].arrays[array].reshape(-1)[order], said)
    assert np.array_equal(found["bands.examples"].pictures[1].image, data.images[1])
    running = by_name(bands(model, data.batches(30), radii=(3.0,), examples=0))
    assert not np.array_equal(
        running["bands.accuracy"].arrays["LFC.predicted"], found["bands.accuracy"].arrays["LFC.predicted"]
    )
    assert all(
        one.how["statistics"] == "batch" and "each batch of 10 copies" in one.notes[-1] for one in found.values()
    )
    assert all(one.how["statistics"] == "running" for one in running.values())


def test_without_degrees_no_image_is_low_passed() -> None:
    found = by_name(bands(network(), images(count=4).batches(4), radii=(3.0,), degrees=(), examples=1))
    assert set(found) == {"bands.clean", "bands.accuracy", "bands.confidence", "bands.examples"}
    assert parse_options(PROBES["bands"], {"degrees": []}, owner="probe bands") == {"degrees": ()}


def test_the_gallery_shows_what_the_model_said_at_each_radius() -> None:
    data = images()
    found = by_name(bands(network(), data.batches(7), radii=(5.0, 2.0), examples=9))
    gallery, accuracy = found["bands.examples"], found["bands.accuracy"]
    assert isinstance(gallery, Gallery) and gallery.view == "bands" and len(gallery.pictures) == 9
    assert gallery.data == {
        "radii": [2.0, 5.0], "shape": "disc", "edge": "inclusive", "unit": "pixel", "rescale": "max",
    }  # fmt: skip
    for index, picture in enumerate(gallery.pictures):
        assert np.array_equal(picture.image, data.images[index])
        assert picture.data["truth"] == picture.caption == data.class_names[data.labels[index]]
        for row in range(2):
            said = data.class_names[accuracy.arrays["HFC.predicted"][row, index]]
            assert picture.data["high"][row]["prediction"] == said
            assert 1 / 3 <= picture.data["low"][row]["confidence"] <= 1


class Mirror(nn.Module):
    """Give the mean of the pixels as one of many logits."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([pixels.mean((1, 2, 3))[:, None], torch.zeros(len(pixels), 4)], dim=1)


def test_agreement_is_named_as_such_and_knows_no_truth() -> None:
    data = images(labels=False)
    batches = data.batches(8).with_targets(torch.zeros(30, dtype=torch.int64), "prediction")
    found = by_name(bands(Mirror(), batches, examples=1))
    assert found["bands.clean"].value == 1
    for name in ("bands.accuracy", "bands.low_pass"):
        assert isinstance(found[name], Curve) and found[name].y.name.startswith("agreement with the prediction")
    assert "predicted on the untouched image" in found["bands.confidence"].y.name
    picture = found["bands.examples"].pictures[0]
    assert picture.data["truth"] is None and picture.caption == "0"
    # Five outputs, three class names in the data: the outputs go by their numbers.
    assert picture.data["full"]["prediction"] == "class 0"


def test_range_convention_and_empty_copies_are_told() -> None:
    found = by_name(bands(network(), images().batches(30), radii=(2.0, 20.0), rescale="none"))["bands.accuracy"]
    words = " ".join(found.notes)
    assert "LFC reaches" in words and "They are not rescaled" in words and "16×16 spectrum" in words
    assert "At radius 20 HFC is empty" in words
    assert found.how["band"] == "low disc r<=2, low disc r<=20"


def test_the_model_is_left_as_it_was_found_and_answers_do_not_depend_on_the_batch() -> None:
    model = network()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    few, many = (by_name(bands(model, images().batches(size))) for size in (4, 30))
    assert np.array_equal(few["bands.accuracy"].arrays["HFC.correct"], many["bands.accuracy"].arrays["HFC.correct"])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model[0].weight.requires_grad and torch.equal(model[5].weight.grad, torch.ones(3, 32))
    assert not any(module._forward_hooks for module in model.modules())


def test_options_come_as_strings_and_results_go_through_a_folder(tmp_path) -> None:
    probe = PROBES["bands"]
    options = parse_options(probe, {"radii": "2,5", "rescale": "none", "examples": "2"}, owner="probe bands")
    Answer({}, probe(network(), images().batches(16), **options)).save(tmp_path)
    loaded = Answer.load(tmp_path)
    assert loaded["bands.accuracy"].x.values == (2, 5)
    assert loaded["bands.accuracy"].arrays["LFC.correct"].shape == (2, 30)


def test_mistakes_are_one_line() -> None:
    for call, words in (
        (lambda: bands(network(), images(labels=False).batches(8)), "no labels"),
        (lambda: bands(network(2), images().batches(8)), "2 classes"),
        (lambda: bands(network(), images().batches(8), radii=()), "radii needs at least one"),
        (lambda: bands(network(), images().batches(8), radii=(-1.0,)), "cut-off"),
        (lambda: parse_options(bands, {"statistics": "bach"}, owner="probe bands"), "statistics cannot be 'bach'"),
        (lambda: bands(network(), images().batches(8), batch=0), "batch is 2 or more"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_logits_too_close_for_probabilities_still_have_a_largest() -> None:
    class Close(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 1e-9, 5e-10]).expand(len(x), 3)

    own = images(count=4).batches(4).with_targets(torch.ones(4, dtype=torch.int64), "prediction")
    assert by_name(bands(Close(), own))["bands.clean"].value == 1
