"""Optimizers by name: torch's own, with torch's own defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn, optim

from passband.core.errors import PassbandError
from passband.core.recipe import Part
from passband.train.optim import OPTIMIZERS, make_optimizer, make_schedule

TORCHS: dict[str, type[optim.Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "rmsprop": optim.RMSprop,
}


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 2, 6))


@pytest.mark.parametrize("name", TORCHS)
def test_defaults_are_torchs(name: str) -> None:
    made = make_optimizer(Part(name=name), [parameter()])
    assert type(made) is TORCHS[name]
    known = inspect.signature(TORCHS[name]).parameters
    options = [option for option in inspect.signature(OPTIMIZERS[name]).parameters if option != "parameters"]
    assert {option: made.defaults[option] for option in options} == {
        option: known[option].default for option in options
    }


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("adam", {"lr": 1e-4, "betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
        ("adagrad", {"lr": 0.02, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3}),
        ("adadelta", {"lr": 0.1, "rho": 0.5, "eps": 1e-3, "weight_decay": 0.1}),
        ("rmsprop", {"lr": 0.02, "alpha": 0.5, "momentum": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    ],
)
def test_every_option_reaches_torch(name: str, arguments: dict[str, Any]) -> None:
    moved = []
    for make in (
        lambda given: make_optimizer(Part(name=name, **arguments), given),
        lambda given: TORCHS[name](given, **arguments),
    ):
        one = parameter()
        optimizer = make([one])
        for _ in range(3):
            optimizer.zero_grad()
            one.square().sum().backward()
            optimizer.step()
        moved.append(one.detach())
    assert torch.equal(*moved) and not torch.equal(moved[0], parameter())


def test_wrong_names_and_options_are_named() -> None:
    with pytest.raises(PassbandError, match="unknown optimizer 'adagard': did you mean 'adagrad'"):
        make_optimizer(Part(name="adagard"), [parameter()])
    with pytest.raises(PassbandError, match="optimizer rmsprop 'rho'"):
        make_optimizer(Part(name="rmsprop", rho=0.9), [parameter()])


def test_a_cosine_begins_where_it_is_told_to_and_is_timms() -> None:
    ours = make_schedule(Part(name="cosine", warmup=20, start=0.04, final=4e-4, prefix=False))
    weights = optim.SGD([parameter()], lr=2.5e-3)
    timms = CosineLRScheduler(weights, t_initial=300, lr_min=1e-6, warmup_t=20, warmup_lr_init=1e-4)
    for epoch in range(300):
        assert 2.5e-3 * ours(epoch, 300) == pytest.approx(timms._get_lr(epoch)[0], rel=1e-12)
    # The figures of spartan's released code, one epoch late there.
    assert 2.5e-3 * ours(20, 300) == pytest.approx(2.473e-3, abs=5e-7)


def test_a_cosine_that_is_told_nothing_is_what_it_was() -> None:
    plain = make_schedule(Part(name="cosine", warmup=2, final=0.1))
    assert [plain(epoch, 6) for epoch in (0, 1, 2, 4, 6)] == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    told = make_schedule(Part(name="cosine", warmup=2, start=0.2))
    assert [told(epoch, 6) for epoch in (0, 1, 2, 4, 6)] == pytest.approx([0.2, 0.6, 1, 0.5, 0])
