"""What is frozen costs no gradient: counted in what autograd computes, not in what it keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import passband.models  # noqa: F401 - registers the models
from passband.core.errors import PassbandError
from passband.models.layers import BiasApartConv2d, DepthwiseConv2d, SeparableConv2d
from passband.weights.biases import keep_biases_apart
from passband.weights.learn import learn

SMALL = {"num_classes": 4}
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "conv_mixer": (lambda: timm.create_model("conv_mixer", width=8, depth=2, kernel=4, patch=2, **SMALL), 16),
    "separable_resnet, factored": (
        lambda: timm.create_model("separable_resnet", depth=1, width=4, multiplier=2, path="factored", **SMALL),
        16,
    ),
    "convnext_atto": (lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), **SMALL), 32),
    "mobilenetv2_035": (lambda: timm.create_model("mobilenetv2_035", **SMALL), 32),
    "efficientnet_b0": (lambda: timm.create_model("efficientnet_b0", **SMALL), 32),
}


@dataclass(frozen=True)
class Backward:
    """What one convolution's backward pass was asked to compute.

    On a CPU torch computes the gradients of weight and bias together, so either brings both.
    """

    depthwise: bool
    pointwise: bool
    weight: bool


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Backward] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            weight, groups, (_, of_weight, of_bias) = args[2], args[9], args[10]
            depthwise = groups > 1 and weight.shape[1] == 1
            self.seen.append(Backward(depthwise, tuple(weight.shape[2:]) == (1, 1), of_weight or of_bias))
        return func(*args, **(kwargs or {}))


def backward(model: nn.Module, images: torch.Tensor) -> list[Backward]:
    with Count() as count:
        model(images).sum().backward()
    return count.seen


def size(model: nn.Module, what: str) -> int:
    """Number of depthwise convolutions, or of pointwise ones."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    if what == "depthwise":
        return sum(m.groups == m.in_channels > 1 for m in convolutions)
    return sum(m.kernel_size == (1, 1) for m in convolutions)


@pytest.mark.parametrize("name", MODELS)
def test_frozen_mixing_computes_no_weight_gradient(name: str) -> None:
    build, side = MODELS[name]
    model, images = build(), torch.rand(2, 3, side, side)
    seen = {}
    for what in ("all", "channels", "spatial"):
        learn(model, what)  # type: ignore[arg-type]
        seen[what] = backward(model, images)
    assert size(model, "depthwise") >= 2 and size(model, "pointwise") >= 2

    def computed(what: str, kind: str) -> int:
        return sum(call.weight for call in seen[what] if getattr(call, kind))

    for kind, learning, frozen in (("depthwise", "spatial", "channels"), ("pointwise", "channels", "spatial")):
        assert computed("all", kind) == computed(learning, kind) == size(model, kind), kind
        assert computed(frozen, kind) == 0, kind


def test_a_composed_layer_computes_its_dense_gradient_in_every_mode() -> None:
    """Both of its weights are reached through the dense one's gradient: freezing either saves nothing here."""
    model = timm.create_model("separable_resnet", depth=1, width=4, multiplier=9, **SMALL)
    layers = [m for m in model.modules() if isinstance(m, SeparableConv2d)]
    assert {m.path for m in layers} == {"composed"}
    for what in ("all", "channels", "spatial"):
        learn(model, what)  # type: ignore[arg-type]
        seen = backward(model, torch.rand(2, 3, 16, 16))
        assert [(call.depthwise, call.weight) for call in seen] == [(False, True)] * len(layers)


ENDS = ("depthwise.0.bias", "conv_dw.bias")


@pytest.mark.parametrize(("name", "pattern"), [("conv_mixer", f"*{ENDS[0]}"), ("convnext_atto", f"*{ENDS[1]}")])
def test_a_bias_that_learns_does_not_bring_back_the_gradient_of_a_frozen_kernel(name: str, pattern: str) -> None:
    build, side = MODELS[name]
    model, images = build(), torch.rand(2, 3, side, side)
    plain = copy.deepcopy(model)
    report = learn(model, "channels", roles={pattern: "neither"})
    biases = [name for name, p in model.named_parameters() if p.requires_grad and name.endswith(ENDS)]
    assert len(biases) == size(model, "depthwise") and report.by_role["spatial"][0] == 0
    seen = backward(model, images)
    assert [call.weight for call in seen if call.depthwise] == [False] * size(model, "depthwise")
    # The bias learns what it would have learned, in the same network under the same names.
    plain(images).sum().backward()
    expected = dict(plain.named_parameters())
    for bias in biases:
        torch.testing.assert_close(model.get_parameter(bias).grad, expected[bias].grad, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(copy.deepcopy(model)(images), plain(images))


def test_torch_itself_brings_it_back() -> None:
    """The trap: were this to pass without our help, there would be nothing to keep apart."""
    convolution = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    convolution.weight.requires_grad_(False)
    assert backward(convolution, torch.rand(1, 4, 8, 8)) == [Backward(True, False, True)]
    keep_biases_apart(convolution)
    assert backward(convolution, torch.rand(1, 4, 8, 8, requires_grad=True)) == [Backward(True, False, False)]


def test_the_class_is_torchs_own_wherever_that_does() -> None:
    model = MODELS["convnext_atto"][0]()

    def apart() -> int:
        return sum(type(m) is BiasApartConv2d for m in model.modules())

    learn(model, "channels", roles={"*conv_dw.bias": "neither"})
    assert apart() == 4
    for again in ("channels", "spatial", "all"):
        learn(model, again)  # type: ignore[arg-type]
        assert apart() == 0
    assert not any(isinstance(m, BiasApartConv2d) for m in model.modules())


@pytest.mark.parametrize("kind", [BiasApartConv2d, DepthwiseConv2d])
@pytest.mark.parametrize("frozen", ["", "weight", "bias", "weight bias"])
def test_outputs_and_gradients_do_not_depend_on_where_the_bias_is(kind: type[nn.Conv2d], frozen: str) -> None:
    module = kind(3, 4) if kind is DepthwiseConv2d else kind(3, 3, 4, groups=3, padding="same", padding_mode="zeros")
    module = module.double()
    plain = nn.Conv2d(3, 3, 4, groups=3, padding="same").double()
    plain.load_state_dict(module.state_dict())
    images = torch.rand(2, 3, 7, 8, dtype=torch.float64)
    for each in (module, plain):
        for name in frozen.split():
            each.get_parameter(name).requires_grad_(False)
    outputs = module(images), plain(images)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    if frozen == "weight bias":
        return
    for output in outputs:
        output.sin().sum().backward()
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (not mine.requires_grad)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_a_class_that_cannot_is_refused_before_anything_changes() -> None:
    same = Conv2dSame(4, 4, 3, groups=4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), same, nn.Conv2d(4, 4, 1))
    with pytest.raises(PassbandError, match=r"'1\.bias' would learn .* Conv2dSame .*roles=\{'1\.\*'"):
        learn(model, "channels", roles={"1.bias": "neither"})
    assert all(parameter.requires_grad for parameter in model.parameters())
    learn(model, "channels", roles={"1.*": "neither"})
    learn(model, "spatial", roles={"1.bias": "neither"})
    assert same.weight.requires_grad
