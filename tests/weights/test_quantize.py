"""A quantized model computes on its levels, learns by the stated gradients, and goes out as ONNX."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import passband
from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.models.wrap import Classifier
from passband.train.quantized import apply, parameter_groups, staged
from passband.weights.export import export_onnx
from passband.weights.frequency_aware import FrequencyMask
from passband.weights.learn import bake, learn
from passband.weights.quantize import QuantizedWeight, describe, masks, quantize, quantized_inputs, set_bits

RESNET = dict(depth=1, width=4, num_classes=5)


def network(**arguments) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("postact_resnet", **RESNET | arguments)


def spec(mean=None, std=None) -> ImageSpec:
    return ImageSpec(size=(16, 16), mean=mean, std=std, source="the test", classes=5)


def weight(bits: int, clip: float | None = 2.0, standardize="none") -> QuantizedWeight:
    return QuantizedWeight(bits, clip=clip, grid="uniform", standardize=standardize, mask=None)


# Weights over the clip of 2: -1.5, -0.45, 0.05, 0.55. Worked by hand for 1, 3, 7 and 127 steps.
BY_HAND = {
    2: [-2, 0, 0, 2],
    3: [-2, -2 / 3, 0, 4 / 3],  # -1.35 to -1, 0.15 to 0, 1.65 to 2
    4: [-2, -6 / 7, 0, 8 / 7],  # -3.15 to -3, 0.35 to 0, 3.85 to 4
    8: [-2, -114 / 127, 12 / 127, 140 / 127],  # -57.15, 6.35, 69.85
}


@pytest.mark.parametrize("bits", BY_HAND)
def test_weights_and_their_gradients_by_hand(bits: int) -> None:
    made, values = weight(bits), torch.tensor([-3.0, -0.9, 0.1, 1.1], requires_grad=True)
    found = made(values)
    torch.testing.assert_close(found.detach(), torch.tensor(BY_HAND[bits], dtype=torch.float32), rtol=1e-6, atol=1e-6)
    found.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    # Straight through, beyond the clip as well.
    assert values.grad is not None and values.grad.tolist() == [1, 2, 3, 4]
    level = [one / 2 for one in BY_HAND[bits]]
    expected = -1 + 2 * (level[1] + 0.45) + 3 * (level[2] - 0.05) + 4 * (level[3] - 0.55)
    assert float(made.clip.grad) == pytest.approx(expected, abs=1e-5)


def test_standardized_weights_have_mean_0_and_deviation_1_whatever_came() -> None:
    values = 5 + 0.01 * torch.randn(8, 4, 3, 3)
    made = weight(32, standardize="tensor")(values)
    assert abs(float(made.mean())) < 1e-4 and float(made.std()) == pytest.approx(1, abs=1e-4)
    centered = weight(32, standardize="center")(values)
    assert float(centered.std()) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(("bits", "alive"), [(4, (0.8, 0.92)), (2, (0.1, 0.17))])
def test_standardizing_is_what_keeps_weights_alive(bits: int, alive: tuple[float, float]) -> None:
    """Without it, weights as a ResNet draws them all lie below the first level of a clip of 3."""
    torch.manual_seed(0)
    values = torch.randn(64, 64, 3, 3) / 24
    share = float((weight(bits, 3.0, "tensor")(values) != 0).float().mean())
    assert alive[0] < share < alive[1]
    assert float((weight(bits, 3.0, "center")(values) != 0).float().mean()) < 0.07


def test_the_mask_is_the_published_formula_written_out() -> None:
    torch.manual_seed(0)
    mask = FrequencyMask(4)
    with torch.no_grad():
        mask.mixing.normal_()
    values = torch.randn(4, 3, 3, 3)
    spectrum = np.fft.fft(values.numpy().reshape(4, 27).astype(np.float64))
    kept = 1 / (1 + np.exp(-(np.abs(spectrum).T @ mask.mixing.detach().numpy().T.astype(np.float64)))).T
    expected = np.fft.ifft(spectrum * kept)
    assert np.abs(expected.imag).max() < 1e-12
    np.testing.assert_allclose(mask(values).detach().numpy().reshape(4, 27), expected.real, atol=1e-5)


def test_the_published_mask_begins_as_good_as_absent_and_the_rescaled_one_does_not() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 64, 3, 3)
    assert FrequencyMask(64).range(values)["min"] > 1 - 1e-6
    found = FrequencyMask(64, "rescaled").range(values)
    assert 0.6 < found["min"] < found["mean"] < 0.8

    def slope(scores) -> float:
        mask = FrequencyMask(64, scores)
        mask(values).square().sum().backward()
        return float(mask.mixing.grad.abs().max())

    assert slope("rescaled") > 1e3 * slope("published")


def test_a_model_computes_on_its_levels_and_says_so() -> None:
    model = network()
    report = quantize(model, 2, activation_bits=3, ends=8, frequency_aware=True)
    middle = [layer for layer in report.layers if layer.weight_bits == 2]
    assert [layer.name for layer in middle] == [f"stages.{s}.{u}.conv" for s in range(3) for u in range(2)]
    assert {(layer.input_bits, layer.signed) for layer in middle} == {(3, True)}
    assert [layer.name for layer in report.layers if layer.weight_bits == 8] == ["stem", "fc"] and not report.skipped
    assert all(len(model.get_submodule(f"{layer.name}.layer").weight.unique()) <= 3 for layer in middle)
    assert len(model.stem.weight.unique()) <= 255
    plain = sum(p.numel() for p in network().parameters()) + sum(
        b.numel() for b in network().buffers() if b.is_floating_point()
    )
    assert report.bytes_before == 4 * plain
    packed = sum(-(-layer.values * layer.weight_bits // 8) for layer in report.layers)
    assert packed == sum(layer.bytes for layer in report.layers)
    saved = 4 * sum(layer.values for layer in report.layers) - packed
    assert report.bytes_after == report.bytes_before - saved + 4 * (6 * 2 + 2)
    assert describe(bake(copy.deepcopy(model))).layers == report.layers
    assert set(masks(model)) == {layer.name for layer in middle}


def test_signs_are_found_layer_by_layer() -> None:
    assert not any(layer.signed for layer in quantize(network(activation="relu"), 4).layers)
    model = timm.create_model("mobilenetv2_035", num_classes=5)
    signed = {layer.name: layer.signed for layer in quantize(model, 4).layers}
    assert signed["blocks.1.0.conv_pw"] and not signed["blocks.1.0.conv_dw"]


def test_baking_keeps_the_answers_and_leaves_the_model_and_its_copies_apart() -> None:
    model = network().eval()
    quantize(model, 4, frequency_aware=True)
    images = torch.rand(4, 3, 32, 32)
    expected = model(images)
    copied = bake(copy.deepcopy(model))
    torch.testing.assert_close(copied(images), expected)
    assert not parametrize.is_parametrized(copied.stages[0][0].conv.layer)
    torch.testing.assert_close(model(images), expected)  # the original still computes its weights
    model(images).sum().backward()


def test_attacks_compute_each_weight_once(monkeypatch) -> None:
    model = network()
    quantize(model, 4)
    calls: list[int] = []
    forward = QuantizedWeight.forward
    monkeypatch.setattr(QuantizedWeight, "forward", lambda self, w: calls.append(1) or forward(self, w))
    before = copy.deepcopy({name: p.detach() for name, p in model.named_parameters()})
    attacked = passband.PGD(steps=3)(model, torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    assert attacked.shape == (2, 3, 32, 32) and len(calls) == 6
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_what_quantizers_learn_has_its_own_rates() -> None:
    model = network()
    options = {"bits": 4, "frequency_aware": True}
    apply(model, options)
    groups = parameter_groups(model, options)
    assert [group.get("lr") for group in groups] == [None, 0.1, 0.02, 0.02]
    assert [len(group["params"]) for group in groups[1:]] == [6, 6, 6]
    assert {group.get("weight_decay") for group in groups[1:]} == {1e-4}
    held = sum(p.numel() for group in groups for p in group["params"])
    assert held == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("value", [-0.2, 1e-5])
def test_a_clip_that_stepped_over_its_floor_still_learns(value: float) -> None:
    made, quantizer = weight(2), network_quantizer()
    for learned in (made.clip, quantizer.clip):
        learned.data.fill_(value)
    made(torch.tensor([-3.0, 0.5, 1.0])).sum().backward()
    quantizer(torch.tensor([-3.0, 0.5, 1.0])).sum().backward()
    assert float(made.clip.grad) != 0 and float(quantizer.clip.grad) != 0
    assert float(made(torch.tensor([5.0])).detach()) == pytest.approx(max(abs(value), 1e-3))


def network_quantizer() -> nn.Module:
    model = network()
    quantize(model, 2)
    return quantized_inputs(model)[0].quantizer


def test_ends_of_zeros_stay_zeros() -> None:
    model = network().eval()
    nn.init.zeros_(model.fc.weight)
    quantize(model, 4, ends=8)
    assert torch.equal(model(torch.rand(1, 3, 32, 32)), model.fc.bias[None])


def test_inputs_come_down_to_their_bits_too_and_a_training_that_is_too_short_is_refused() -> None:
    model = network()
    options = {"bits": 2, "activation_bits": 8, "progressive": (4,)}
    apply(model, options)
    seen: list[tuple[int, int]] = []

    def step(model, images, targets, number):
        layer = describe(model).layers[0]
        seen.append((layer.weight_bits, layer.input_bits))
        return images, targets

    at = staged(step, options, steps=2, epochs=2)
    for number in range(4):
        at(model, torch.empty(0), torch.empty(0), number)
    assert seen == [(4, 8), (4, 8), (2, 8), (2, 8)]
    with pytest.raises(PassbandError, match="takes 1 epochs and the training has 1"):
        staged(step, options, steps=2, epochs=1)


def test_bits_can_come_down() -> None:
    model = network().eval()
    images = torch.rand(2, 3, 32, 32)
    quantize(model, 2, standardize="none", weight_clip=0.5)
    set_bits(model, 32, 32)
    torch.testing.assert_close(model(images), network().eval()(images))
    set_bits(model, 3, 2)
    layer = describe(model).layers[0]
    assert (layer.weight_bits, layer.input_bits) == (3, 2)
    assert len(model.stages[0][0].conv.layer.weight.unique()) == 7


def test_a_quantized_model_can_learn_its_channels_alone() -> None:
    model = timm.create_model("mobilenetv2_035", num_classes=5)
    quantize(model, 4)
    report = learn(model, "channels")
    assert report.by_role["spatial"][0] == 0 < report.by_role["channel"][0]


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 2, "ends": 8},
        pytest.param({"bits": 4, "frequency_aware": "rescaled", "grid": "power-of-two"}, marks=pytest.mark.slow),
    ],
)
def test_onnx_gives_the_same_predictions(options, tmp_path: Path) -> None:
    model = Classifier(network(), spec((0.5,), (0.25,))).train()
    quantize(model, **options)
    model(torch.rand(64, 3, 16, 16))
    model.eval()
    done = export_onnx(model, tmp_path / "model.onnx")
    assert done.agree == done.images == 32 and done.difference < 1e-5
    import onnxruntime

    images = torch.rand(3, 3, 16, 16)  # another batch than it was exported with
    (found,) = onnxruntime.InferenceSession(done.path).run(None, {"images": images.numpy()})
    assert np.array_equal(found.argmax(1), answers(model, images).argmax(1).numpy())


@torch.no_grad()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)


def test_an_export_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch) -> None:
    model = Classifier(network(), spec())
    with pytest.raises(PassbandError, match=r"ends with \.onnx"):
        export_onnx(model, tmp_path / "model.pt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PassbandError, match=r"pip install 'passband\[export\]'"):
        export_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 1}, "2 to 16 bits"),
        ({"bits": 8, "grid": "power-of-two"}, "2 to 7 bits"),
        ({"skip": ("blocks.*",)}, "matches none of the 6 convolutions"),
        ({"skip": ("stages.*",)}, "every convolution behind the first is skipped"),
        ({"weight_clip": 0.0}, "above 0"),
        ({"activation_clip": 0.0}, "above 0"),
        ({"activation_clip": -1.0}, "above 0"),
    ],
)
def test_what_cannot_be_quantized_is_refused_and_left_as_it_was(options, words: str) -> None:
    model = network()
    with pytest.raises(PassbandError, match=words):
        quantize(model, **options)
    assert list(model.state_dict()) == list(network().state_dict())


def test_a_network_that_cannot_take_the_noise_says_what_to_give() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 60 * 60, 2))
    with pytest.raises(PassbandError, match=r"it cannot take that .*: give signed=True or False"):
        quantize(model, 4)
    assert [layer.name for layer in quantize(model, 4, signed=True).layers] == ["1"]


def test_models_that_do_not_fit_are_refused() -> None:
    model = network()
    quantize(model, 4)
    with pytest.raises(PassbandError, match="quantized already"):
        quantize(model, 2)
    with pytest.raises(PassbandError, match="VisionTransformer has 1 in all"):
        quantize(timm.create_model("vit_tiny_patch16_224", depth=1), 4)
    with pytest.raises(PassbandError, match="plain convolutions"):
        quantize(timm.create_model("separable_resnet", depth=1, width=4), 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 4, "progressive": [32, 4]}, "falls, to more than 4 bits"),
        ({"bits": 4, "progressive": [40, 5]}, "2 to 16 bits"),
        ({"bits": 4, "grid": "power-of-two", "progressive": [8]}, "2 to 7 bits"),
        ({"bits": "four"}, "bits cannot be 'four'"),
        ({"bits": None}, "bits cannot be None"),
        ({"bits": 4, "rates": [0.1, 0.1, 0]}, "three numbers above 0"),
        ({"bits": 4, "rates": [0.1]}, "rates cannot be"),
        ({"bits": 4, "bit": 2}, "did you mean 'bits'"),
        ({"bits": 4, "standardize": "all"}, "standardize cannot be 'all'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(options, words: str) -> None:
    with pytest.raises(PassbandError, match=words):
        apply(network(), options)
