"""The probe `cost`: counts by hand, memory of work whose tensors are known, and a model that stays as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from passband.core.errors import PassbandError
from passband.core.results import Table, row_dicts
from passband.data.dataset import ImageSet
from passband.models.wave_mixer import WaveMixer
from passband.probes import PROBES
from passband.probes.counts import count
from passband.probes.peak import held, peak

cost = PROBES["cost"]
SIDE = 8


class Small(nn.Module):
    """A convolution whose kernel is composed before it is used, a norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.turn = nn.Parameter(torch.eye(4))
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        kernel = torch.einsum("op,pihw->oihw", self.turn, self.kernel)
        features = self.norm(F.conv2d(images, kernel, padding=1))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def images(number: int = 3) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (number, SIDE, SIDE, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, np.zeros(number, np.int64), tuple("abcde"), "0" * 64)


def test_counts_are_those_of_a_calculation_by_hand_and_work_on_weights_is_none() -> None:
    model = Small()
    model.turn.requires_grad_(False)
    counts = count(model, torch.zeros(1, 3, SIDE, SIDE))
    assert counts.convolutions == 3 * 4 * 9 * SIDE**2 and counts.linear == 4 * 5 and counts.products == 0
    assert counts.norms == counts.pooled == 4 * SIDE**2
    assert counts.flops == counts.macs + 6 * 4 * SIDE**2
    assert counts.parameters == 4 * 27 + 16 + 8 + 25 and counts.learned == counts.parameters - 16


@pytest.mark.parametrize("groups", [8, 16], ids=["composed", "depthwise"])
def test_the_wave_mixers_kernel_is_counted_though_no_module_sees_it(groups: int) -> None:
    mixer = WaveMixer(8, 2, groups=groups, norm=nn.BatchNorm2d, act=nn.GELU)
    counts = count(mixer, torch.zeros(1, 8, 4, 4))
    assert counts.convolutions == 16 * (3 * 8 * 16 + 16 * 9 * 16 // groups) + 2 * 16 * 2
    assert counts.norms == 16 * 16


def test_attention_is_counted_by_itself() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24, num_heads=3, num_classes=0)
    counts = count(model, torch.zeros(1, 3, 32, 32))
    tokens = 5
    assert counts.products == 2 * tokens**2 * 24 and counts.linear == tokens * 24**2 * (3 + 1 + 8)


def test_the_peak_is_the_most_that_was_alive_at_one_time() -> None:
    given = torch.zeros(1000)

    def work() -> None:
        doubled = given * 2
        more = doubled + 1
        del doubled
        view = more.view(10, 100)
        kept = view * 3  # noqa: F841
        given.add_(1)

    assert peak(work, torch.device("cpu")) == 8000
    assert held([given, given.view(10, 100), torch.zeros(2)]) == 4008


def test_tensors_that_autograd_keeps_are_alive() -> None:
    given = torch.zeros(1000, requires_grad=True)

    def chain(steps: int) -> int:
        def work() -> None:
            grown = given
            for _ in range(steps):
                grown = grown.exp()
            kept.append(grown.sum())

        kept: list[Tensor] = []
        return peak(work, torch.device("cpu"))

    assert chain(5) == 5 * 4000 + 4 and chain(9) == 9 * 4000 + 4
    with torch.no_grad():
        assert chain(9) == 2 * 4000


def test_a_model_is_measured_and_stays_as_it_was() -> None:
    model = Small().train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    counts, times = cost(model, images().batches(2), batch=4, rounds=2, precisions=("float32",))
    assert torch.equal(drawn, torch.get_rng_state()) and model.training and not model.norm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert isinstance(counts, Table) and isinstance(times, Table)
    assert row_dicts(counts)[0]["input"] == f"{SIDE}×{SIDE}"
    rows = {row["what"]: row for row in row_dicts(times)}
    assert list(rows) == ["forward", "latency", "training step"]
    assert [row["images"] for row in rows.values()] == [4, 1, 4] and {row["rounds"] for row in rows.values()} == {2}
    for row in rows.values():
        assert row["time, least"] <= row["time"] <= row["time, most"]
        assert row["speed, most"] == pytest.approx(1e3 * row["images"] / row["time, least"])
    # A training step holds weights and AdamW's two moments, and keeps what the backward pass needs.
    assert rows["training step"]["peak memory"] > rows["forward"]["peak memory"] > rows["latency"]["peak memory"]


def test_frozen_models_have_no_training_step_and_bf16_is_measured_where_it_is_asked_for() -> None:
    model = Small().requires_grad_(False)
    _, times = cost(model, images().batches(2), batch=2, rounds=1, precision="bf16")
    assert [row[1:3] for row in times.rows] == [("bf16", "forward"), ("bf16", "latency")]
    assert any(re.fullmatch(r"bf16 changes [0-2] of 2 predictions.", note) for note in times.notes)
    assert "No parameter asks for a gradient" in times.notes[-1]


class Views(Small):
    """What counts on channels first in memory."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(1) + images.view(len(images), -1)[:, :1]


def test_what_was_asked_for_and_not_done_is_said_and_nothing_else() -> None:
    def refused(model: nn.Module, **options: bool) -> tuple[list[str], int]:
        _, times = cost(
            model, images().batches(2), batch=2, rounds=1, precisions=("float32",), training=False, **options
        )
        return [note for note in times.notes if note.startswith("Not ")], times.how["folded"]

    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert refused(plain) == ([], 0) and refused(plain, folded=True) == ([], 1)
    plain[4].register_forward_hook(lambda *_: None)
    (note,), folded = refused(plain, folded=True)
    assert note.startswith("Not folded: ") and "hooks" in note and folded == 0
    (note,), _ = refused(Views())
    assert note.startswith("Not in channels last: RuntimeError")


def test_options_out_of_range_are_said() -> None:
    with pytest.raises(PassbandError, match="2 images or more, as batch norm needs; got 1"):
        cost(Small(), images().batches(2), batch=1)
    with pytest.raises(PassbandError, match="unknown precision 'fp16'"):
        cost(Small(), images().batches(2), precisions=("fp16",))
    with pytest.raises(PassbandError, match="1 round or more; got 0"):
        cost(Small(), images().batches(2), rounds=0, precisions=("float32",))
