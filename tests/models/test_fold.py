"""A folded copy computes what the model computes, and what cannot be folded safely is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import deepcopy

import pytest
import timm
import torch
import torchvision
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations, weight_norm

from passband.core.errors import PassbandError
from passband.models.create import create
from passband.models.fold import Folded, count_norms, fold
from passband.models.layers import DepthwiseConv2d, SeparableConv2d
from passband.models.wrap import Classifier


def _stirred(model: nn.Module) -> nn.Module:
    """Give every norm statistics and an affine map that matter, in float64."""
    chance = torch.Generator().manual_seed(1)
    for module in model.double().eval().modules():
        if isinstance(module, _BatchNorm):
            if module.running_mean is not None:
                module.running_mean.normal_(0, 0.3, generator=chance)
                module.running_var.uniform_(0.3, 3, generator=chance)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=chance)
                module.bias.data.normal_(0, 0.3, generator=chance)
    return model


def _random(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _asked(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    output = model(images)
    (gradient,) = torch.autograd.grad(output.sin().sum(), images)
    return output.detach(), gradient


def _same(model: nn.Module, images: Tensor) -> tuple[nn.Module, Folded]:
    """Fold, and hold outputs and gradients against the model's own."""
    folded, how = fold(model)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(module.training for module in folded.modules())
    for ours, theirs in zip(_asked(folded, images), _asked(model.eval(), images), strict=True):
        assert theirs.abs().max() > 1e-9
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    return folded, how


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.Conv1d(4, 6, 3, bias=False), lambda: nn.BatchNorm1d(6), (4, 9)),
    "2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), lambda: nn.BatchNorm2d(6), (4, 9, 9)),
    "3d": (lambda: nn.Conv3d(4, 6, 2), lambda: nn.BatchNorm3d(6), (4, 4, 4, 4)),
    "bias": (lambda: nn.Conv2d(4, 6, 3, padding=1), lambda: nn.BatchNorm2d(6), (4, 7, 7)),
    "reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), lambda: nn.BatchNorm2d(6), (4, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), lambda: nn.BatchNorm2d(8), (4, 7, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2), lambda: nn.BatchNorm2d(6), (4, 7, 7)),
    "no affine": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.BatchNorm2d(6, affine=False), (4, 7, 7)),
    "eps": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.BatchNorm2d(6, eps=0.5), (4, 7, 7)),
    "linear": (lambda: nn.Linear(4, 6, bias=False), lambda: nn.BatchNorm1d(6), (4,)),
    "linear, no affine": (lambda: nn.Linear(4, 6), lambda: nn.BatchNorm1d(6, affine=False), (4,)),
    "timm's same": (lambda: Conv2dSame(4, 6, 3, stride=2, bias=False), lambda: nn.BatchNorm2d(6), (4, 8, 7)),
    "timm's norm and act": (lambda: nn.Conv2d(4, 6, 3, bias=False), lambda: BatchNormAct2d(6), (4, 7, 7)),
    "our depthwise": (lambda: DepthwiseConv2d(4, 4), lambda: nn.BatchNorm2d(4), (4, 7, 7)),
    "separable, composed": (
        lambda: SeparableConv2d(4, 6, 3, 2, multiplier=9, bias=True, path="composed"),
        lambda: nn.BatchNorm2d(6),
        (4, 7, 7),
    ),
    "separable, factored": (
        lambda: SeparableConv2d(4, 6, 3, multiplier=2, path="factored"),
        lambda: nn.BatchNorm2d(6),
        (4, 7, 7),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_over_the_norm_after_it(name: str) -> None:
    layer, norm, shape = LAYERS[name]
    torch.manual_seed(0)
    model = _stirred(nn.Sequential(layer(), norm()))
    folded, how = _same(model, _random(3, *shape))
    assert how == Folded(1, 1, others={"separable convolution": 1} if name == "separable, composed" else {})
    assert count_norms(folded) == 0
    assert not any(isinstance(module, SeparableConv2d) and module.path == "composed" for module in folded.modules())


def test_the_activation_of_timms_norm_stays() -> None:
    norm = BatchNormAct2d(6, act_layer=nn.Hardtanh)
    model = _stirred(nn.Sequential(nn.Conv2d(4, 6, 3), norm))
    model[0].weight.data.mul_(9)
    folded, _ = _same(model, _random(3, 4, 7, 7))
    assert any(isinstance(module, nn.Hardtanh) for module in folded.modules())
    assert folded(_random(3, 4, 7, 7)).abs().max() == 1


# Norms by hand. Post-activation: all but the head's. Pre-activation: of each block the one between its convolutions.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "postact_resnet": (lambda: timm.create_model("postact_resnet", depth=1, width=4), 7, 8),
    "cifar_resnet": (lambda: timm.create_model("cifar_resnet", depth=2, width=4), 6, 13),
    "separable_resnet": (lambda: timm.create_model("separable_resnet", depth=1, width=4), 3, 7),
    "separable_resnet, factored": (
        lambda: timm.create_model("separable_resnet", depth=1, width=4, path="factored"),
        3,
        7,
    ),
    "conv_mixer": (lambda: timm.create_model("conv_mixer", depth=2, width=8), 0, 5),
    "resnet18": (lambda: timm.create_model("resnet18"), 20, 20),
    "mobilenetv3": (lambda: timm.create_model("mobilenetv3_small_050"), 34, 34),
    "efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), 49, 49),
    "convnext": (lambda: timm.create_model("convnext_atto"), 0, 0),
    "torchvision": (lambda: torchvision.models.resnet18(), 20, 20),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_folded_is_the_network(name: str) -> None:
    make, folded, norms = NETWORKS[name]
    torch.manual_seed(0)
    _, how = _same(_stirred(make()), _random(2, 3, 32, 32))
    others = {"separable convolution": 7} if name == "separable_resnet" else {}
    assert how == Folded(folded, norms, others=others)


def test_a_classifier_stays_one_with_its_normalization() -> None:
    model = _stirred(create("postact_resnet", depth=1, width=4, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4)))
    folded, how = _same(model, _random(2, 3, 32, 32))
    assert isinstance(folded, Classifier) and isinstance(model, Classifier)
    assert folded.spec == model.spec
    assert how == Folded(7, 8)


def test_float32_is_rounded_once() -> None:
    exact = _stirred(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).float()).float()
    rounded, _ = fold(exact)
    twin, _ = fold(deepcopy(exact).double())
    assert torch.equal(rounded[0].weight, twin[0].weight.float())
    assert torch.equal(rounded[0].bias, twin[0].bias.float())


class _Net(nn.Module):
    """Two convolutions, two norms, and a way through them."""

    def __init__(self, way: Callable[[_Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last, self.last_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.way = way
        self.seen: object = None

    def forward(self, images: Tensor, twice: bool = False) -> Tensor:
        if twice:
            images = 2 * images
        return self.last_norm(self.last(self.way(self, images)))


def _two_readers(net: _Net, images: Tensor) -> Tensor:
    features = net.conv(images)
    return net.norm(features) + features


def _asked_twice(net: _Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(net.conv(images)))


def _norm_twice(net: _Net, images: Tensor) -> Tensor:
    return net.norm(net.norm(net.conv(images)))


def _weight_read(net: _Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images)) * net.conv.weight.square().mean()


def _scale_read(net: _Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images)) * net.norm.weight.mean()


def _between(net: _Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images).relu())


@pytest.mark.parametrize("way", [_two_readers, _asked_twice, _norm_twice, _weight_read, _scale_read, _between])
def test_only_a_norm_that_alone_reads_its_layer_is_folded(way: Callable[[_Net, Tensor], Tensor]) -> None:
    folded, how = _same(_stirred(_Net(way)), _random(2, 4, 8, 8))
    assert how == Folded(1, 2)
    assert isinstance(folded.norm, nn.BatchNorm2d) and isinstance(folded.last_norm, nn.Identity)


def _by_its_other_name(net: _Net, images: Tensor) -> Tensor:
    return net.other(net.conv(images))


def test_a_layer_that_stands_in_two_places_is_left() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(shared, nn.BatchNorm2d(4), nn.ReLU(), shared, nn.BatchNorm2d(4))
    assert _same(_stirred(model), _random(2, 4, 8, 8))[1] == Folded(0, 2)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), norm, nn.Conv2d(4, 4, 3), norm)
    assert _same(_stirred(model), _random(2, 4, 8, 8))[1] == Folded(0, 1)
    twice_named = _Net(_by_its_other_name)
    twice_named.other = twice_named.norm
    assert _same(_stirred(twice_named), _random(2, 4, 8, 8))[1] == Folded(1, 2)


def test_norms_of_the_batchs_own_statistics_are_left() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert _same(_stirred(model), _random(2, 4, 8, 8))[1] == Folded(0, 1)


class _Awake(nn.Sequential):
    def train(self, mode: bool = True) -> _Awake:
        return super().train(True)


def test_a_norm_that_stays_in_training_mode_is_left() -> None:
    assert fold(_Awake(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))[1] == Folded(0, 1)


class _Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


def test_a_layer_that_does_something_else_with_its_weight_is_left() -> None:
    model = nn.Sequential(_Standardized(4, 4, 3), nn.BatchNorm2d(4))
    assert _same(_stirred(model), _random(2, 4, 8, 8))[1] == Folded(0, 1)


def test_a_linear_layer_whose_features_are_not_the_norms_is_left() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(5))  # [batch, 5 places, features]
    assert _same(_stirred(model), _random(2, 5, 4))[1] == Folded(0, 1)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm2d(6))  # [batch, 6 places, 3 places, features]
    assert _same(_stirred(model), _random(2, 6, 3, 4))[1] == Folded(0, 1)


def _looks_at_values(net: _Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images)) if images.mean() > 0 else images


def test_a_model_that_looks_at_values_is_copied_and_says_so() -> None:
    folded, how = _same(_stirred(_Net(_looks_at_values)), _random(2, 4, 8, 8))
    assert (how.folded, how.norms) == (0, 2)
    assert how.reason.startswith("cannot be traced (TraceError: symbolically traced variables cannot be used as inputs")
    assert count_norms(folded) == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_is_copied() -> None:
    model = torch.jit.script(_stirred(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))))
    folded, _ = _same(model, _random(2, 4, 8, 8))
    assert folded is not model


def _hooked(kind: str) -> Callable[[nn.Sequential], object]:
    return lambda model: getattr(model[0], kind)(lambda module, *values: None)


OBSTACLES: dict[str, tuple[Callable[[nn.Sequential], object], str]] = {
    "forward hook": (_hooked("register_forward_hook"), "'0' has hooks"),
    "forward pre-hook": (_hooked("register_forward_pre_hook"), "'0' has hooks"),
    "backward hook": (_hooked("register_full_backward_hook"), "'0' has hooks"),
    "backward pre-hook": (_hooked("register_full_backward_pre_hook"), "'0' has hooks"),
    "hook on the whole": (lambda model: model.register_forward_hook(lambda *_: None), "the model itself has hooks"),
    "parametrized": (lambda model: parametrizations.weight_norm(model[0]), "'0' has parametrized weights"),
    "replaced forward": (lambda model: setattr(model[0], "forward", model[0].forward), "its forward replaced"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_may_change_the_answer_unseen_is_left_and_named(name: str) -> None:
    change, reason = OBSTACLES[name]
    model = _stirred(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    change(model)
    _, how = _same(model, _random(2, 4, 8, 8))
    assert (how.folded, how.norms) == (0, 1)
    assert reason in how.reason


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    model.lock = threading.Lock()
    with pytest.raises(PassbandError, match=r"cannot be copied \(TypeError: cannot pickle"):
        fold(model)
    old = nn.Sequential(weight_norm(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4))
    old(torch.rand(1, 4, 8, 8))  # leaves a weight that has a history
    with pytest.raises(PassbandError, match=r"cannot be copied \(RuntimeError: Only Tensors created explicitly"):
        fold(old)


def _remembers(net: _Net, images: Tensor) -> Tensor:
    net.seen = images
    return net.norm(net.conv(images))


def test_the_model_is_left_as_it_was_and_the_copy_holds_no_stand_in() -> None:
    model = _stirred(_Net(_remembers))
    model.norm.train()
    model.conv.weight.requires_grad_(False)
    model.last.weight.grad = torch.ones_like(model.last.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded, how = fold(model)
    assert how == Folded(2, 2)
    assert model.seen is None and folded.seen is None
    assert [name for name, module in model.named_modules() if module.training] == ["norm"]
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["conv.weight"]
    assert [name for name, value in model.named_parameters() if value.grad is not None] == ["last.weight"]
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(model.norm, nn.BatchNorm2d)
    own = {value.data_ptr() for value in model.parameters()}
    assert not any(value.data_ptr() in own for value in folded.parameters())
