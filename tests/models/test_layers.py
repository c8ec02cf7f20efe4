"""A separable convolution is one linear map; a depthwise one with an even kernel is torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from passband.core.errors import PassbandError
from passband.models.layers import DepthwiseConv2d, SeparableConv2d, cheaper_path


def _twins(**options: int) -> tuple[SeparableConv2d, SeparableConv2d]:
    composed = SeparableConv2d(4, 6, path="composed", **options).double()
    factored = SeparableConv2d(4, 6, path="factored", **options).double()
    factored.load_state_dict(composed.state_dict())
    return composed, factored


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 3, 9])
@pytest.mark.parametrize("kernel_size", [3, 4])
def test_both_paths_agree_in_outputs_and_every_gradient(stride: int, multiplier: int, kernel_size: int) -> None:
    outputs, gradients = [], []
    for module in _twins(kernel_size=kernel_size, stride=stride, multiplier=multiplier):
        images = torch.rand(2, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        images.requires_grad_()
        outputs.append(module(images))
        outputs[-1].sin().sum().backward()
        gradients.append([images.grad, *(parameter.grad for parameter in module.parameters())])
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    assert len(gradients[0]) == 3
    for composed, factored in zip(*gradients, strict=True):
        assert composed is not None and composed.abs().max() > 1e-3
        torch.testing.assert_close(composed, factored, rtol=1e-12, atol=1e-12)


def test_channel_order_is_input_major() -> None:
    module = SeparableConv2d(2, 1, 3, multiplier=2, path="composed")
    kernels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 3, 3)
    module.depthwise.weight.data.copy_(kernels)
    module.pointwise.weight.data.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1))
    # input channel 0 has filters 0 and 1, channel 1 has filters 2 and 3
    assert module.kernel()[0, :, 0, 0].tolist() == [10.0, 3200.0]


def test_bias_and_padding_are_the_convolutions_own() -> None:
    module = SeparableConv2d(3, 5, 3, padding=0, multiplier=2, bias=True, path="composed")
    images = torch.rand(1, 3, 6, 6)
    expected = module.pointwise(module.depthwise(images))
    assert expected.shape == (1, 5, 4, 4)
    torch.testing.assert_close(module(images), expected)


class _Double(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.parametrize("path", ["composed", "factored"])
def test_a_parametrized_weight_is_the_one_used(path: str) -> None:
    module = SeparableConv2d(3, 4, 3, multiplier=9, path=path)  # type: ignore[arg-type]
    images = torch.rand(1, 3, 8, 8)
    before = module(images)
    parametrize.register_parametrization(module.depthwise, "weight", _Double())
    torch.testing.assert_close(module(images), 2 * before)


@pytest.mark.parametrize(("frozen", "learned"), [("depthwise", "pointwise"), ("pointwise", "depthwise")])
def test_a_frozen_part_gets_no_gradient_and_the_other_does(frozen: str, learned: str) -> None:
    module = SeparableConv2d(3, 4, 3, multiplier=9)
    module.get_submodule(frozen).weight.requires_grad_(False)
    module(torch.rand(1, 3, 8, 8)).sum().backward()
    assert module.get_submodule(frozen).weight.grad is None
    assert module.get_submodule(learned).weight.grad.abs().sum() > 0


def test_the_cheaper_path_is_taken_and_named() -> None:
    for out_channels in (1, 16, 64, 4096):
        assert cheaper_path(out_channels, 3, 9) == "composed"
    assert cheaper_path(64, 3, 1) == "factored"
    assert "path=composed" in repr(SeparableConv2d(8, 64, 3, multiplier=9))
    assert "path=factored" in repr(SeparableConv2d(8, 64, 3))
    assert SeparableConv2d(8, 64, 3, path="composed").path == "composed"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(PassbandError, match="auto, composed or factored; got 'fast'"):
        SeparableConv2d(3, 4, 3, path="fast")
    with pytest.raises(PassbandError, match="at least 1"):
        SeparableConv2d(3, 4, 3, multiplier=0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel_size", [1, 2, 5, 8])
def test_depthwise_is_torchs_same_convolution(kernel_size: int) -> None:
    module = DepthwiseConv2d(3, kernel_size).double()
    images = torch.rand(2, 3, 11, 10, dtype=torch.float64)
    expected = F.conv2d(images, module.weight, module.bias, padding="same", groups=3)
    torch.testing.assert_close(module(images), expected, rtol=1e-12, atol=1e-12)
    assert list(module.state_dict()) == ["weight", "bias"]


def test_a_learning_bias_does_not_bring_back_the_gradient_of_a_frozen_kernel() -> None:
    module = DepthwiseConv2d(3, 8)
    module.weight.requires_grad_(False)
    images = torch.rand(2, 3, 11, 10, requires_grad=True)
    add = module(images).grad_fn
    convolution = next(node for node, _ in add.next_functions if node.name() == "ConvolutionBackward0")
    inputs = [node.variable for node, _ in convolution.next_functions if node is not None]
    assert len(inputs) == 1 and inputs[0] is images  # neither the frozen kernel nor the bias
    module(images).sum().backward()
    assert module.bias is not None and module.bias.grad is not None
