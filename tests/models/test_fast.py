"""The quick form of a model answers as the model does, says what was done, and leaves the model alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.create import create
from passband.models.fast import TOLERANCE, fast, has_bf16


def _stirred(model: nn.Module) -> nn.Module:
    chance = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3, generator=chance)
            module.running_var.uniform_(0.3, 3, generator=chance)
    return model


def _network() -> nn.Module:
    torch.manual_seed(0)
    return _stirred(timm.create_model("postact_resnet", depth=1, width=4))


def _images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).logsumexp(1).sum(), images)
    return gradient


def test_it_answers_as_the_model_and_says_what_was_done() -> None:
    model, images = _network().eval(), _images()
    quick = fast(model, images)
    assert quick.how.pop("difference") < 1e-5  # type: ignore[operator]
    assert quick.how == {
        "norms": 8, "folded": 7, "layout": "channels_last", "precision": "float32", "compiled": False
    }  # fmt: skip
    logits = quick.module(images)
    assert logits.dtype == torch.float32 and not logits.requires_grad
    torch.testing.assert_close(logits, model(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(_gradient(quick.module, images), _gradient(model, images), rtol=1e-4, atol=1e-5)
    weights = [parameter for parameter in quick.module.parameters() if parameter.ndim == 4]
    assert len(weights) == 7 and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not any(parameter.requires_grad for parameter in quick.module.parameters())


def test_what_a_convolution_of_one_channel_gives_lies_in_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    quick = fast(model, torch.rand(2, 1, 8, 8))
    first = quick.module.get_submodule("network.0")
    assert first(torch.rand(2, 1, 8, 8)).stride(1) == 1


def test_the_model_is_left_as_it_was() -> None:
    model, images = _network(), _images()
    model.stem_norm.eval()
    model.stem.weight.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    handle = model.fc.register_forward_hook(lambda *_: None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strides = [value.stride() for value in model.parameters()]
    quick = fast(model, images)
    _gradient(quick.module, images)
    assert [name for name, module in model.named_modules() if not module.training] == ["stem_norm"]
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["stem.weight"]
    assert [name for name, value in model.named_parameters() if value.grad is not None] == ["fc.weight"]
    assert [value.stride() for value in model.parameters()] == strides
    assert list(model.fc._forward_hooks) == [handle.id]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_folding_can_be_left_out_and_hooks_leave_it_out() -> None:
    model, images = _network(), _images()
    how = fast(model, images, folding=False).how
    assert (how["norms"], how["folded"], how["unfolded"]) == (8, 0, "not asked for")
    model.fc.register_forward_hook(lambda module, values, output: 2 * output)
    quick = fast(model, images)
    assert (quick.how["folded"], quick.how["unfolded"]) == (0, "'fc' has hooks, which may change what it gives")
    torch.testing.assert_close(quick.module(images), model.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_fold_that_changes_the_answer_is_not_used() -> None:
    # As many places as features: nothing but a sample tells which of them the norm is over.
    torch.manual_seed(0)
    model = _stirred(nn.Sequential(nn.Flatten(2), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Flatten())).eval()
    images = torch.rand(3, 4, 4, 4)
    quick = fast(model, images)
    assert (quick.how["norms"], quick.how["folded"]) == (1, 0)
    words = str(quick.how["unfolded"])
    assert words.startswith("folded, its logits were off by 0.") and float(words.split()[6]) > TOLERANCE
    assert float(quick.how["difference"]) < 1e-6
    torch.testing.assert_close(quick.module(images), model(images))


class _Views(nn.Module):
    """Flatten as many networks do, in a way that holds for one layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.conv(images))
        return self.head(features.view(images.shape[0], -1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_code_that_needs_the_usual_layout_gets_it(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    model, images = _stirred(_Views()).eval(), torch.rand(3, 3, 8, 8)
    expected = model(images)
    quick = fast(model, images.contiguous(memory_format=layout))
    assert (quick.how["folded"], quick.how["layout"]) == (1, "channels_first")
    assert str(quick.how["layout_kept"]).startswith("RuntimeError: view size is not compatible")
    torch.testing.assert_close(quick.module(images.contiguous(memory_format=layout)), expected, rtol=1e-5, atol=1e-5)
    assert quick.module.get_submodule("network.conv").weight.is_contiguous()  # type: ignore[operator, union-attr]


def test_a_model_that_cannot_be_copied_is_lent() -> None:
    model, images = _network(), _images()
    model.lock = threading.Lock()
    quick = fast(model, images, compile=True)
    assert quick.how["layout"] == "as it is" and quick.how["compiled"] is False
    assert str(quick.how["not_copied"]).startswith("the model cannot be copied (TypeError: cannot pickle")
    gradient = _gradient(quick.module, images)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(gradient, _gradient(model.eval(), images))


def test_float64_stays_float64() -> None:
    model, images = _network().double().eval(), _images().double()
    quick = fast(model, images)
    assert quick.module(images).dtype == torch.float64
    assert float(quick.how["difference"]) < 1e-13
    with pytest.raises(PassbandError, match="bf16 needs a model of float32; this one is of float64"):
        fast(model, images, precision="bf16")


def test_a_model_of_16_bits_gives_logits_of_32() -> None:
    model = _stirred(nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten())).bfloat16()
    assert (
        fast(model, torch.rand(2, 3, 8, 8).bfloat16()).module(torch.rand(2, 3, 8, 8).bfloat16()).dtype == torch.float32
    )


def test_bf16_differs_and_gives_float32() -> None:
    model = create("postact_resnet", depth=1, width=4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    images = _images(2)
    exact, rough = fast(_stirred(model), images), fast(model, images, precision="bf16")
    assert rough.how["precision"] == "bf16" and rough.how["folded"] == 7
    assert ("precision_note" in rough.how) != has_bf16()
    assert 1e-4 < float(rough.how["difference"]) < 0.1
    logits = rough.module(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact.module(images), rtol=0, atol=0.1)
    gradient, precise = _gradient(rough.module, images), _gradient(exact.module, images)
    assert gradient.dtype == torch.float32 and not torch.equal(gradient, precise)
    assert torch.cosine_similarity(gradient.flatten(), precise.flatten(), 0) > 0.98


class _RulesOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = _network()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + torch.tensor([0.0] * 8 + [float("-inf")] * 2)


def test_classes_that_are_ruled_out_do_not_count() -> None:
    how = fast(_RulesOut(), _images()).how
    assert how["folded"] == 7 and float(how["difference"]) < 1e-5


def _silent(network: nn.Module) -> nn.Module:
    nn.init.zeros_(network.fc.weight)
    return nn.Sequential(network, nn.Identity())


def test_a_model_whose_logits_are_all_one_number_is_no_trouble() -> None:
    network = _silent(_network())
    nn.init.zeros_(network[0].fc.bias)
    assert fast(network, _images()).how["difference"] == 0


BAD: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "a tuple": (lambda logits: (logits, logits), "this model gave tuple"),
    "features": (lambda logits: logits[:, :, None], r"this model gave \[3, 10, 1\]"),
    "NaN": (lambda logits: logits * float("nan"), "the model gives NaN"),
}


class _Gives(nn.Module):
    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.network, self.what = _network(), what

    def forward(self, images: Tensor) -> object:
        return self.what(self.network(images))


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_classifier_is_refused(name: str) -> None:
    what, words = BAD[name]
    with pytest.raises(PassbandError, match=words):
        fast(_Gives(what), _images())


@pytest.mark.slow
def test_compiled_it_answers_the_same() -> None:
    torch.manual_seed(0)
    model = _stirred(timm.create_model("resnet18", num_classes=10)).eval()
    images = _images(4)
    quick = fast(model, images, compile=True)
    assert quick.how["compiled"] is True and float(quick.how["difference"]) < 1e-5
    torch.testing.assert_close(_gradient(quick.module, images), _gradient(model, images), rtol=1e-3, atol=1e-5)
