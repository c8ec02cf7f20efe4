"""Element by element with torchattacks 3.5.1 and foolbox, on a trained network; they come with the bench extra."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from passband.attacks.carlini_wagner import CW
from passband.attacks.chance import image_keys, normal
from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import BIM, FGSM, PGD
from passband.attacks.noise import GN
from passband.attacks.trades import TPGD

Trained = tuple[nn.Module, Tensor, Tensor]
EPS, ALPHA = 4 / 255, 1 / 255


@pytest.fixture(scope="module")
def torchattacks() -> Any:
    return pytest.importorskip("torchattacks", reason="needs the bench extra")


@pytest.fixture(scope="module")
def foolbox() -> Any:
    return pytest.importorskip("foolbox", reason="needs the bench extra")


def agree(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    difference = (ours - theirs).abs()
    print(f"largest difference {float(difference.max()):.3g} in pixels of [0, 1]")
    assert float(difference.max()) <= tolerance


def test_network_is_worth_attacking(trained: Trained) -> None:
    model, images, labels = trained
    with torch.no_grad():
        right = float((model(images).argmax(1) == labels).float().mean())
        left = float((model(PGD(EPS)(model, images, labels)).argmax(1) == labels).float().mean())
    assert right > 0.7 and left < right - 0.2


# The mean that torchattacks takes of the losses scales gradients by a power of two here, so no sign can change.
def test_fgsm(torchattacks: Any, trained: Trained) -> None:
    model, images, labels = trained
    agree(FGSM(EPS)(model, images, labels), torchattacks.FGSM(model, eps=EPS)(images, labels), 1e-6)


def test_bim(torchattacks: Any, trained: Trained) -> None:
    model, images, labels = trained
    theirs = torchattacks.BIM(model, eps=EPS, alpha=ALPHA, steps=10)(images, labels)
    agree(BIM(EPS, ALPHA, 10)(model, images, labels), theirs, 1e-6)


def test_pgd(torchattacks: Any, trained: Trained) -> None:
    model, images, labels = trained
    theirs = torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=10, random_start=False)(images, labels)
    agree(PGD(EPS, ALPHA, 10, random_start=False)(model, images, labels), theirs, 1e-6)


def test_targeted_pgd(torchattacks: Any, trained: Trained) -> None:
    model, images, labels = trained
    goals = (labels + 1) % model.num_classes
    rival = torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=10, random_start=False)
    rival.set_mode_targeted_by_label(quiet=True)
    ours = PGD(EPS, ALPHA, 10, random_start=False, targeted=True)
    agree(ours(model, images, goals), rival(images, goals), 1e-6)


def test_pgdl2(torchattacks: Any, exact: Trained) -> None:
    model, images, labels = exact
    theirs = torchattacks.PGDL2(model, eps=0.5, alpha=0.1, steps=10, random_start=False)(images, labels)
    agree(PGDL2(0.5, 0.1, 10, random_start=False)(model, images, labels), theirs, 1e-6)


def test_tpgd_from_the_same_start(torchattacks: Any, exact: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels = exact
    monkeypatch.setattr(torch, "randn_like", lambda x: normal(image_keys(x, 0), x.shape[1:]).to(x.dtype))
    theirs = torchattacks.TPGD(model, eps=EPS, alpha=ALPHA, steps=10)(images, labels)
    agree(TPGD(EPS, ALPHA, 10)(model, images, labels), theirs, 1e-6)


def test_gn_from_the_same_noise(torchattacks: Any, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels = trained
    monkeypatch.setattr(torch, "randn_like", lambda x: normal(image_keys(x, 0), x.shape[1:]))
    agree(GN(0.1)(model, images, labels), torchattacks.GN(model, std=0.1)(images, labels), 1e-7)


@pytest.mark.parametrize("steps", [20, 50])
def test_cw_in_compat_mode(torchattacks: Any, trained: Trained, steps: int) -> None:
    model, images, labels = trained
    theirs = torchattacks.CW(model, c=1, kappa=0, steps=steps, lr=0.01)(images, labels)
    agree(CW(1, 0, steps, 0.01, compat="torchattacks-3.5.1")(model, images, labels), theirs, 1e-4)


@pytest.fixture(scope="module")
def exact(trained: Trained) -> Trained:
    """In float64: an L2 step carries rounding on, and TPGD's divergence starts at 0, where rounding has the sign."""
    model, images, labels = trained
    return copy.deepcopy(model).double(), images.double(), labels


def _foolbox(foolbox: Any, trained: Trained, attack: Any, eps: float) -> Tensor:
    model, images, labels = trained
    clipped: Tensor = attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=eps)[1]
    return clipped


def test_foolbox_fgsm(foolbox: Any, trained: Trained) -> None:
    theirs = _foolbox(foolbox, trained, foolbox.attacks.FGSM(), EPS)
    agree(FGSM(EPS)(*trained), theirs, 1e-6)


def test_foolbox_pgd_linf(foolbox: Any, trained: Trained) -> None:
    rival = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=10, random_start=False)
    agree(PGD(EPS, ALPHA, 10, random_start=False)(*trained), _foolbox(foolbox, trained, rival, EPS), 1e-6)


def test_foolbox_pgd_l2(foolbox: Any, exact: Trained) -> None:
    rival = foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=10, random_start=False)
    agree(PGDL2(0.5, 0.1, 10, random_start=False)(*exact), _foolbox(foolbox, exact, rival, 0.5), 1e-6)
