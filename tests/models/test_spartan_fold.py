"""SpaRTAN's form for evaluation, its export, and its training form under autocast, compilation and both layouts."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.spec import ImageSpec
from passband.models.fast import fast
from passband.models.fold import Folded, count_norms, fold
from passband.models.spartan import Spartan
from passband.models.spartan_inference import FoldedBlock
from passband.models.wave_mixer import WaveMixer, modulated, modulated_kernel
from passband.models.wrap import Classifier
from passband.weights.export import export_onnx

SIZES: dict[str, Any] = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_classes": 7}
# What differs from the default; batch norms, those folded, and what else is.
WAVES = {"layer scales": 8, "gamma": 4, "complex weights": 2}
VARIANTS: dict[str, tuple[dict[str, Any], int, int, dict[str, int]]] = {
    "default": ({}, 17, 17, WAVES),
    "all full": ({"convolution": "F"}, 17, 17, {"layer scales": 8, "gamma": 4}),
    "all depthwise": ({"convolution": "D"}, 17, 17, WAVES | {"complex weights": 4}),
    "the text's groups": ({"groups": "paper"}, 17, 17, WAVES),
    "kernel 5": ({"kernel": 5}, 17, 17, WAVES),
    "silu": ({"block_act": "silu"}, 17, 17, WAVES),
    "layer norm": ({"conv_norm": "layer"}, 0, 0, WAVES),
    "batch norm before mixers": ({"mixer_norm": "batch"}, 25, 17, WAVES),
    "convolution and mlp": ({"spatial": "convolution", "channel": "mlp"}, 9, 9, {"layer scales": 8}),
    "mlp and se": ({"channel": "mlp+se"}, 13, 13, {"layer scales": 8, "gamma": 4}),
}


def _trained(**arguments: Any) -> Spartan:
    """Return a network whose statistics, biases, scales and γ matter, after some steps."""
    torch.manual_seed(0)
    model = Spartan(**SIZES, **arguments)
    for name, parameter in model.named_parameters():
        if name.endswith(("scale", "gamma")):
            nn.init.normal_(parameter)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.3)
        elif "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        loss = model(_images(4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _images(count: int = 3, side: int = 40) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("name", VARIANTS)
def test_folded_it_is_the_same_network(name: str) -> None:
    arguments, norms, gone, others = VARIANTS[name]
    model = _trained(**arguments)
    folded, how = fold(model)
    assert how == Folded(gone, norms, others=others) and count_norms(folded) == norms - gone
    images = _images().requires_grad_()
    expected, found = model(images), folded(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
    ours, theirs = (torch.autograd.grad(one.square().sum(), images)[0] for one in (found, expected))
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-3
    last = folded.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, found, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))


def test_images_pass_in_pieces_and_each_gets_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, _ = fold(_trained())
    whole = folded(_images(5))
    seen = []
    before = FoldedBlock._block
    monkeypatch.setattr(FoldedBlock, "_block", lambda self, part: seen.append(len(part)) or before(self, part))
    monkeypatch.setattr("passband.models.spartan_inference.PIECE", 2 * 32 * 10 * 10)
    torch.testing.assert_close(folded(_images(5)), whole, rtol=1e-4, atol=1e-5)
    assert seen[:3] == [2, 2, 1]


def test_a_block_with_another_part_stays_as_it_is() -> None:
    model = _trained()
    block: Any = model.get_submodule("stages.0.0")
    block.channel.phase = nn.Sequential(block.channel.phase, nn.Tanh())
    folded, how = fold(model)
    assert how == Folded(17, 17, others={"layer scales": 6, "gamma": 3, "complex weights": 2})
    torch.testing.assert_close(folded(_images()), model(_images()), rtol=1e-4, atol=1e-5)


def test_the_quick_form_says_what_was_folded() -> None:
    how = fast(_trained(), _images()).how
    assert (how["norms"], how["folded"], how["layout"]) == (17, 17, "channels_last")
    assert how["also_folded"] == "layer scales 8, gamma 4, complex weights 2"


def test_pairs_are_complex_numbers_in_either_layout() -> None:
    waves, rotation = torch.randn(2, 6, 3, 5), torch.randn(3, 2, requires_grad=True)
    product = torch.complex(waves[:, ::2], waves[:, 1::2]) * torch.view_as_complex(rotation)[:, None, None]
    expected = torch.stack((product.real, product.imag), 2).flatten(1, 2)
    (gradient,) = torch.autograd.grad(expected.square().sum(), rotation)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = modulated(waves.contiguous(memory_format=layout), rotation)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.square().sum(), rotation)[0], gradient)
        low = modulated(waves.contiguous(memory_format=layout).bfloat16(), rotation)
        assert low.dtype == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bf16_gives_finite_outputs_and_gradients(layout: torch.memory_format) -> None:
    model = _trained().train().to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(_images().contiguous(memory_format=layout)).float().square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    folded = fold(model)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert folded(_images()).isfinite().all()


@pytest.mark.parametrize("groups", [16, 8, 1])
def test_bf16_is_near_float32(groups: int) -> None:
    torch.manual_seed(1)
    norm, act = partial(nn.BatchNorm2d, eps=1e-6), nn.GELU
    mixer = WaveMixer(8, 2, groups=groups, norm=norm, act=act)
    features = torch.randn(2, 8, 6, 6)
    features[:, 3] += 9  # the strongest channel is the same in both precisions
    kernel = mixer.refine.conv.weight
    answers, gradients = [], []
    for enabled in (False, True):
        mixer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            answer = mixer(features)
            if groups < 16:
                assert modulated_kernel(kernel, mixer.rotation, groups).dtype == torch.float32
        answer.float().square().mean().backward()
        answers.append(answer.detach().float())
        gradients.append(mixer.rotation.grad.clone())
    for low, exact in zip((answers[1], gradients[1]), (answers[0], gradients[0]), strict=True):
        assert float((low - exact).norm() / exact.norm()) < 0.05


def test_all_of_it_in_bf16_gives_the_same_in_both_layouts() -> None:
    waves, rotation = torch.randn(2, 6, 3, 5).bfloat16(), torch.randn(3, 2).bfloat16()
    last = modulated(waves.contiguous(memory_format=torch.channels_last), rotation)
    torch.testing.assert_close(last, modulated(waves, rotation))


@pytest.mark.slow
def test_the_exported_form_answers_as_the_network() -> None:
    model, images = _trained(), _images(2)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(fold(model)[0], (images,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(_images(5)), model(_images(5)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_folded_file_answers_as_the_network(tmp_path: Path) -> None:
    import onnxruntime

    spec = ImageSpec(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, source="any", classes=7, fit="pad")
    model = Classifier(_trained(), spec)
    done = export_onnx(model, tmp_path / "model.onnx", folding=True)
    assert done.difference < 1e-4 and done.folded is not None and done.folded.folded == 17
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    images = torch.rand(5, 3, 32, 32)
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, model(images).detach().numpy(), rtol=1e-3, atol=1e-5)


COMPILED = """
import torch
from passband.models.fold import fold
from passband.models.spartan import Spartan

torch.manual_seed(0)
model = Spartan(widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_classes=7).eval()
for name, parameter in model.named_parameters():
    if name.endswith(("scale", "gamma")):
        torch.nn.init.normal_(parameter)
images = torch.randn(3, 3, 40, 40).contiguous(memory_format=torch.channels_last)
with torch.no_grad():
    expected = model(images)
    for network in (model, fold(model)[0]):
        torch.testing.assert_close(torch.compile(network, fullgraph=True)(images), expected, rtol=1e-3, atol=1e-5)
torch.compile(model.train(), fullgraph=True)(images).square().mean().backward()
assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
"""


@pytest.mark.slow
def test_it_compiles_whole() -> None:
    # In a process of its own: beartype, which checks shapes in tests, cannot be compiled.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
