"""The attacks of torchattacks, foolbox and ART as their users write them: the whole batch, then one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 20
LEARNING_RATE = 0.01

Standing = Callable[[], Tensor]
"""Attacks all images and returns which of them the model still gets right, bool [N]."""

Prepare = Callable[[nn.Module, str, float, Tensor, Tensor], Standing]
"""A library's way: model, attack, ε, images [N, C, H, W] in [0, 1] and labels [N] to what is timed."""

MODULES = {"torchattacks": "torchattacks", "foolbox": "foolbox", "ART": "art"}
INSTALL = {
    "torchattacks": "pip install --no-deps torchattacks==3.5.1",
    "foolbox": "pip install -e '.[bench]'",
    "ART": "pip install -e '.[bench]'",
}


def present() -> set[str]:
    """Return which libraries are there; say how to get the others."""
    found = {name for name, module in MODULES.items() if find_spec(module) is not None}
    for name in MODULES:
        if name not in found:
            print(f"{name} is not installed, and its rows are left out: {INSTALL[name]}")
    return found


def torchattacks(model: nn.Module, attack: str, eps: float, images: Tensor, labels: Tensor) -> Standing:
    """Prepare an attack of torchattacks 3.5.1, defaults but for the step and the number of steps."""
    import torchattacks as library

    iterated = {"eps": eps, "alpha": eps / 4, "steps": STEPS}
    made: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: library.FGSM(model, eps=eps),
        "pgd": lambda: library.PGD(model, **iterated),
        "bim": lambda: library.BIM(model, **iterated),
        "tpgd": lambda: library.TPGD(model, **iterated),
        "cw": lambda: library.CW(model, c=1, kappa=0, steps=STEPS, lr=LEARNING_RATE),
    }
    search = made[attack]()

    def standing() -> Tensor:
        adversarial = search(images, labels)
        with torch.no_grad():
            hits: Tensor = model(adversarial).argmax(1) == labels
        return hits.cpu()

    return standing


def foolbox(model: nn.Module, attack: str, eps: float, images: Tensor, labels: Tensor) -> Standing:
    """Prepare an attack of foolbox 3.3, which evaluates its images itself; its CW stops by other rules."""
    import foolbox as library
    from foolbox import attacks

    wrapped = library.PyTorchModel(model, bounds=(0, 1), device=images.device)
    iterated = {"abs_stepsize": eps / 4, "steps": STEPS}
    made: dict[str, Callable[[], Any]] = {
        "fgsm": attacks.LinfFastGradientAttack,
        "pgd": lambda: attacks.LinfProjectedGradientDescentAttack(**iterated),
        "bim": lambda: attacks.LinfBasicIterativeAttack(**iterated),
        "cw": lambda: attacks.L2CarliniWagnerAttack(
            binary_search_steps=1, steps=STEPS, stepsize=LEARNING_RATE, confidence=0, initial_const=1
        ),
    }
    search = made[attack]()
    bound = None if attack == "cw" else eps

    def standing() -> Tensor:
        _, _, fooled = search(wrapped, images, labels, epsilons=bound)
        stands: Tensor = ~fooled
        return stands.cpu()

    return standing


def art(model: nn.Module, attack: str, eps: float, images: Tensor, labels: Tensor) -> Standing:
    """Prepare an attack of ART, NumPy arrays in and out; its CW searches along a line in each step."""
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    pixels, truth, count = images.cpu().numpy(), labels.cpu().numpy(), len(images)
    kind = "gpu" if images.device.type == "cuda" else "cpu"
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0.0, 1.0), device_type=kind
    )
    iterated = {"eps": eps, "eps_step": eps / 4, "max_iter": STEPS, "batch_size": count, "verbose": False}
    carlini = partial(
        evasion.CarliniL2Method, confidence=0.0, learning_rate=LEARNING_RATE, binary_search_steps=1, max_iter=STEPS
    )
    made: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: evasion.FastGradientMethod(classifier, eps=eps, batch_size=count),
        "pgd": lambda: evasion.ProjectedGradientDescent(classifier, num_random_init=1, **iterated),
        "bim": lambda: evasion.BasicIterativeMethod(classifier, **iterated),
        "cw": lambda: carlini(classifier, initial_const=1.0, batch_size=count, verbose=False),
    }
    search = made[attack]()

    def standing() -> Tensor:
        adversarial = search.generate(pixels, truth)
        answers = classifier.predict(adversarial, batch_size=count).argmax(1)
        return torch.from_numpy(answers == truth)

    return standing


RIVALS: dict[str, Prepare] = {"torchattacks": torchattacks, "foolbox": foolbox, "ART": art}
