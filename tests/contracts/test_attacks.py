"""What holds for every registered attack."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from passband.attacks.registry import ATTACKS, Attack, make, norm_of
from passband.core.errors import PassbandError


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(288, 5),
    )
    model = nn.Sequential(*layers)
    with torch.no_grad():
        model(torch.rand(64, 3, 8, 8))  # running statistics that are not the initial ones
    return model


def images(count: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=generator) / 255


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])

CHEAP: dict[str, dict[str, Any]] = {
    "square": {"n_queries": 40},
    "smallest-pgd": {"steps": 3},
    "cw": {"steps": 5},
}
"""Fewer questions than the defaults: what is held here does not depend on their number."""

NAMES = [name for name in ATTACKS if name != "standard"]  # made of others: tests/attacks/test_standard.py
every_attack = pytest.mark.parametrize("name", NAMES)


def cheap(name: str, **options: Any) -> Attack:
    return make(name, {**CHEAP.get(name, {}), **options})


bounded = pytest.mark.parametrize("name", [name for name in NAMES if cheap(name).search().threat is not None])
asking = pytest.mark.parametrize("name", [name for name in NAMES if cheap(name).search().queries])
RAISES = [name for name in NAMES if name != "tpgd" and not getattr(ATTACKS[name], "black_box", False)]
"""Attacks that follow the labels' loss: noise does not, square may fail, TPGD leads away from the model's answer."""


@pytest.mark.parametrize("name", list(ATTACKS))
def test_is_a_printable_value(name: str) -> None:
    attack = make(name)
    assert is_dataclass(attack) and make(name) == attack and hash(attack) == hash(make(name))
    namespace = {type(attack).__name__: ATTACKS[name]}
    assert eval(repr(attack), namespace) == attack


@every_attack
@settings(max_examples=10, deadline=None)
@given(gray_levels=st.integers(0, 255), seed=st.integers(0, 2**32), ends=st.booleans())
def test_stays_in_the_ball_and_in_the_range(name: str, gray_levels: int, seed: int, ends: bool) -> None:
    attack: Any = cheap(name)
    eps = gray_levels / 255 * (5 if norm_of(attack) == "L2" else 1)
    untouched = images(seed=seed).round() if ends else images(seed=seed)
    adversarial = attack.at(eps)(network(), untouched, LABELS)
    assert adversarial.dtype == untouched.dtype and adversarial.shape == untouched.shape
    assert float(adversarial.min()) >= 0 and float(adversarial.max()) <= 1
    if (threat := attack.at(eps).search().threat) is not None:
        # float32 rounds ε and x + δ once each, by at most 2^-25 below 1; a length sums 192 such errors.
        room = 2**-24 if threat.norm == "Linf" else 2**-20 * (1 + eps)
        assert float(threat.distance(adversarial.double(), untouched.double()).max()) <= eps + room


@bounded
def test_zero_eps_changes_nothing(name: str) -> None:
    untouched = images()
    assert torch.equal(cheap(name).at(0)(network(), untouched, LABELS), untouched)


@pytest.mark.parametrize("name", RAISES)
def test_raises_the_loss_and_leaves_its_arguments(name: str) -> None:
    model, untouched, labels = network().eval(), images(), LABELS.clone()
    kept = untouched.clone()
    adversarial = cheap(name)(model, untouched, labels)
    loss = nn.CrossEntropyLoss(reduction="none")
    changed = (adversarial != untouched).flatten(1).any(1)  # a search for the smallest change may need none
    with torch.no_grad():
        rises = loss(model(adversarial), labels) > loss(model(untouched), labels)
        right = model(untouched).argmax(1) == labels
    assert rises[changed].all() and (changed | ~right).all()
    assert torch.equal(untouched, kept) and torch.equal(labels, LABELS) and not adversarial.requires_grad


@every_attack
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_leaves_the_model_as_it_was(name: str, mode: str) -> None:
    model = network()
    model.train()
    model[1].eval()
    model[5].weight.requires_grad_(False)
    gradient = torch.ones_like(model[0].weight)
    model[0].weight.grad = gradient
    seen: list[list[bool]] = []
    hook = model.register_forward_hook(lambda *_: seen.append([part.training for part in model.modules()]))
    modes = [part.training for part in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    cheap(name, mode=mode)(model, images(), LABELS)
    assert [part.training for part in model.modules()] == modes
    learns = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert [key for key, learn in learns.items() if not learn] == ["5.weight"]
    assert model[0].weight.grad is gradient and bool((gradient == 1).all())
    assert all(p.grad is None for key, p in model.named_parameters() if key != "0.weight")
    assert hook.id in model._forward_hooks and (seen or name == "gn") and all(set(s) == {mode == "train"} for s in seen)
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, weights[key])]
    # Training mode moves the running statistics, as a training step does; evaluation mode moves nothing.
    assert (changed == []) if mode == "eval" else all(key.startswith("1.") for key in changed)


@asking
def test_model_is_given_back_after_an_error(name: str) -> None:
    model = network().train()
    with pytest.raises(PassbandError, match=r"labels lie in 0 to 4 for a model of 5 classes; got 0 to 5"):
        cheap(name)(model, images(), LABELS.clamp(min=0) + (LABELS == 4))
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@every_attack
def test_keeps_memory_format_and_type(name: str) -> None:
    model, untouched = network(), images().contiguous(memory_format=torch.channels_last)
    assert cheap(name)(model, untouched, LABELS).is_contiguous(memory_format=torch.channels_last)
    assert cheap(name)(model, images(), LABELS).is_contiguous()
    assert cheap(name)(model.double(), images().double(), LABELS).dtype == torch.float64


@every_attack
def test_depends_on_no_other_image_of_the_batch(name: str) -> None:
    model, untouched = network().double(), images().double()
    together = cheap(name)(model, untouched, LABELS)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    # A matrix product rounds by a row's place, in the last of 53 bits, and no attack is meant to hide that.
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-9)
    close(cheap(name)(model, untouched[order], LABELS[order]), together[order])
    alone = [cheap(name)(model, untouched[i : i + 1], LABELS[i : i + 1]) for i in range(len(untouched))]
    close(torch.cat(alone), together)


@every_attack
@pytest.mark.parametrize(
    ("wrong", "message"),
    [(lambda x: 2 * x, "divide by 255"), (lambda x: x - 1, "in"), (lambda x: x * float("nan"), "NaN")],
)
def test_refuses_pixels_out_of_range(name: str, wrong, message: str) -> None:
    with pytest.raises(PassbandError, match=message) as caught:
        cheap(name)(network(), wrong(images()), LABELS)
    assert "\n" not in str(caught.value)


@asking
def test_refuses_a_model_that_gives_nan(name: str) -> None:
    model = network()
    model[5].bias.data[0] = float("nan")
    with pytest.raises(PassbandError, match="the model gives NaN"):
        cheap(name)(model, images(), LABELS)


@bounded
@pytest.mark.parametrize("eps", [-0.1, 8, float("nan")])
def test_refuses_a_radius_that_is_none(name: str, eps: float) -> None:
    euclidean = norm_of(make(name)) == "L2"
    if euclidean and eps == 8:
        eps = float("inf")  # 8 is a length
    with pytest.raises(PassbandError, match="a length of 0 or more" if euclidean else "eps lies in 0 to 1"):
        make(name).at(eps)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_unknown_option_names_the_nearest(name: str) -> None:
    option = fields(ATTACKS[name])[0].name
    with pytest.raises(PassbandError, match=f"did you mean '{option}'"):
        make(name, {option + "s": "8/255"})
