"""How long a training step, its layers and a forward pass take: in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from statistics import median
from typing import Any, Literal

import timm
import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from passband.core.recipe import Recipe
from passband.core.rounds import interleaved as interleaved
from passband.core.spec import ImageSpec
from passband.models.fast import fast
from passband.models.layers import SeparableConv2d
from passband.models.wrap import Classifier
from passband.probes.cost import wait as wait
from passband.sweeps.lab import Lab
from passband.tasks import TASKS
from passband.train.build import trainable_model
from passband.train.optim import make_optimizer
from passband.train.steps import make_scheme
from passband.weights.learn import LearnReport, learned_parameters
from passband.weights.roles import bare, roles

CLASSES = {"photos": 15, "cifar100": 100, "imagenet": 1000}
"""Outputs of a network for each set; ten for the others. No data is needed to time it."""


def step_seconds(recipes: Mapping[str, Recipe], lab: Lab, rounds: int = 7) -> dict[str, float]:
    """Return the seconds that one training step of each recipe takes: the median over rounds, on the lab's device.

    A step is the recipe's own: attack or scheme, forward and backward pass, optimizer, moving average, on one batch of
    random pixels, which take as long as any others. Reading and augmenting images is not in it. Measured once and kept
    among the lab's runs: the same recipes, whatever their seeds and epochs, have the same seconds on the next call.

    Args:
        recipes: What is compared, by name.
        lab: Where it is measured and kept.
        rounds: How often each step is timed, 1 or more.

    Raises:
        PassbandError: for no rounds, and whatever a recipe's model or scheme refuses.
    """
    return {name: median(seconds) for name, seconds in step_rounds(recipes, lab, rounds).items()}


def step_rounds(recipes: Mapping[str, Recipe], lab: Lab, rounds: int = 7) -> dict[str, list[float]]:
    """Return :func:`step_seconds` round by round: in each, every recipe takes one step."""
    same = {name: _same_step(recipe) for name, recipe in recipes.items()}
    identity = {"recipes": same, "rounds": rounds, "code": _code()}

    def make() -> dict[str, list[float]]:
        return interleaved({name: training_step(recipe, lab.device) for name, recipe in recipes.items()}, rounds)

    return lab.kept("steps", identity, make)


def forward_rounds(
    networks: Mapping[str, Mapping[str, Any]], lab: Lab, *, size: int, batch: int, rounds: int = 7
) -> dict[str, list[float]]:
    """Return the seconds that each network takes for a batch of random images, round by round.

    In float32, channels last, batch norms not folded. Kept as :func:`step_seconds` is.

    Args:
        networks: A name in timm's registry and its arguments, by name.
        lab: Where it is measured and kept.
        size: Side of the images in pixels.
        batch: Images.
        rounds: How often each is timed, 1 or more.
    """
    known = {name: dict(network) for name, network in networks.items()}
    identity = {"networks": known, "size": size, "batch": batch, "rounds": rounds, "code": _code()}

    def make() -> dict[str, list[float]]:
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(lab.device)
        return interleaved({name: _forward(network, images) for name, network in known.items()}, rounds)

    return lab.kept("forwards", identity, make)


def _forward(network: dict[str, Any], images: Tensor) -> Callable[[], None]:
    with torch.random.fork_rng():
        model = timm.create_model(network["name"], **{name: one for name, one in network.items() if name != "name"})
    quick = fast(model.to(images.device), images[:2], folding=False).module

    @torch.no_grad()
    def run() -> None:
        quick(images)
        wait(str(images.device))

    return run


@cache
def _code() -> str:
    """Hash the code whose time is taken: the networks and what is frozen in them."""
    root = files("passband")
    sources = [one for room in ("models", "weights") for one in (root / room).iterdir() if one.name.endswith(".py")]
    return hashlib.sha256(b"".join(one.read_bytes() for one in sorted(sources, key=str))).hexdigest()


def _same_step(recipe: Recipe) -> str:
    """Return what recipes share whose steps are the same work: a digest without seed and epochs."""
    return recipe.model_copy(update={"seed": 0, "epochs": 1}).digest("")


def training_step(recipe: Recipe, device: str) -> Callable[[], None]:
    """Return a function that takes one training step of a recipe, always on the same random batch.

    The learning rate is zero, which costs the same: no training on random labels runs off into numbers that are none.

    Args:
        recipe: Whose step.
        device: A torch device's name.
    """
    kind, _, index = device.partition(":")
    precision = "bf16-mixed" if recipe.precision == "bf16" else "32-true"
    fabric = Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision=precision)
    bare_model, _ = model_of(recipe)
    bare_model.to(fabric.device).to(memory_format=torch.channels_last)
    learned = [parameter for _, parameter in learned_parameters(bare_model)]
    ema = None if recipe.ema is None else ModelEmaV3(bare_model, decay=recipe.ema.decay)
    scheme = make_scheme(recipe.scheme, recipe.attack, {}, TASKS[recipe.task])
    model, optimizer = fabric.setup(bare_model, make_optimizer(recipe.optimizer, learned))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    images, targets = random_batch(recipe, device)
    number = 0

    def step() -> None:
        nonlocal number
        model.train()
        loss, _ = scheme.step(model, images, targets, number)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        if ema is not None:
            ema.update(bare_model)
        number += 1
        wait(device)

    return step


def model_of(recipe: Recipe) -> tuple[Classifier, LearnReport]:
    """Return a recipe's model and what learns in it, without its data: mean and std are the middle of the range."""
    normalized = recipe.normalize != "none"
    classes = CLASSES.get(recipe.data.name, 10) if TASKS[recipe.task].gives == "logits" else 0
    spec = ImageSpec(
        size=(recipe.data.size, recipe.data.size), mean=(0.5,) * 3 if normalized else None,
        std=(0.25,) * 3 if normalized else None, source="any", classes=classes, fit="pad",
    )  # fmt: skip
    with torch.random.fork_rng():
        model, report = trainable_model(recipe, spec)
    assert isinstance(model, Classifier)  # no experiment times a detector's steps
    return model, report


def random_batch(recipe: Recipe, device: str) -> tuple[Tensor, Tensor]:
    """Return images [B, 3, H, W] in [0, 1], channels last, and targets [B], of a recipe's size and batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(recipe.batch, 3, recipe.data.size, recipe.data.size, generator=generator)
    targets = torch.randint(CLASSES.get(recipe.data.name, 10), (recipe.batch,), generator=generator)
    return images.to(device).to(memory_format=torch.channels_last), targets.to(device)


Kind = Literal["spatial", "channel", "composed"]
"""What a layer does: depthwise, pointwise, or both as one dense convolution (a composed ``SeparableConv2d``)."""


@dataclass(frozen=True)
class Layer:
    """Name a convolution of a network, and what it is given.

    Attributes:
        kind: Which mixing it does.
        module: The convolution.
        shape: Of its input [B, C, H, W].
        inner: Whether its input comes from what learns, so that a training needs the input's gradient; the layer
            that sees the images themselves is the one that does not.
    """

    kind: Kind
    module: nn.Module
    shape: tuple[int, ...]
    inner: bool


def layer_rounds(recipe: Recipe, lab: Lab, rounds: int = 7) -> dict[str, list[float]]:
    """Return the seconds that a recipe's spatial and channel layers take apart from each other, round by round.

    Each convolution runs by itself, in float32, on input of the shape that it has in a training step: its forward
    pass, the gradient of its input alone and the gradient of its weights (and bias) alone; summed over the network.
    Layers that are alike are timed once and counted as often as they occur. A composed layer is one dense convolution:
    its forward pass and input gradient belong to both mixings, its weight gradient is taken for both, for the
    depthwise filters alone and for the pointwise ones alone. Layers that mix both (a patch projection) are left out.
    Kept as :func:`step_seconds` is.

    Args:
        recipe: Whose network; which of its layers learn plays no part, each gradient is asked for by itself.
        lab: Where it is measured and kept.
        rounds: How often each is timed, 1 or more.

    Returns:
        Seconds, one number a round, by ``"spatial forward"``, ``"channel input gradient"``,
        ``"composed weight gradient"`` and so on: what the network has.
    """

    def make() -> dict[str, list[float]]:
        parts: dict[str, tuple[str, int]] = {}
        variants: dict[str, Callable[[], object]] = {}
        for index, (layer, count) in enumerate(_counted(layers(recipe, lab.device)).items()):
            for what, run in _passes(layer, lab.device):
                parts[f"{index} {what}"] = what, count
                variants[f"{index} {what}"] = run
        sums: dict[str, list[float]] = {what: [0.0] * rounds for what, _ in parts.values()}
        for name, seconds in interleaved(variants, rounds).items():
            what, count = parts[name]
            sums[what] = [whole + count * one for whole, one in zip(sums[what], seconds, strict=True)]
        return sums

    return lab.kept("layers", {"recipe": _same_step(recipe), "rounds": rounds, "code": _code()}, make)


def layers(recipe: Recipe, device: str) -> list[Layer]:
    """Return a recipe's spatial and channel convolutions with the shapes that a batch has there.

    Args:
        recipe: Whose network; the roles that its ``learn_options`` give count.
        device: A torch device's name.
    """
    model, _ = model_of(recipe)
    model.to(device).to(memory_format=torch.channels_last)
    model.requires_grad_(True)
    mixing = roles(model, overrides=(recipe.learn_options or {}).get("roles"))
    found: list[Layer] = []
    hooks = []
    for name, module in bare(model).named_modules():
        composed = isinstance(module, SeparableConv2d) and module.path == "composed"
        kind = "composed" if composed else mixing.get(f"{name}.weight") if isinstance(module, nn.Conv2d) else None
        if kind in ("spatial", "channel", "composed"):
            hooks.append(module.register_forward_pre_hook(partial(_note, found, kind)))
    # Two images show which inputs need a gradient; the batch is put in place of them.
    images, _ = random_batch(recipe, device)
    model.train()(images[:2])
    for hook in hooks:
        hook.remove()
    return [replace(layer, shape=(recipe.batch, *layer.shape[1:])) for layer in found]


def _note(found: list[Layer], kind: Kind, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    found.append(Layer(kind, module, tuple(inputs[0].shape), inputs[0].requires_grad))


def _counted(found: list[Layer]) -> dict[Layer, int]:
    """Count the layers that are alike in kind, geometry, input and need."""
    key = {layer: (layer.kind, repr(layer.module), layer.shape, layer.inner) for layer in found}
    counts = Counter(key.values())
    first = {key[layer]: layer for layer in reversed(found)}
    return {layer: counts[alike] for alike, layer in first.items()}


def _passes(layer: Layer, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name and a run of each pass through a layer."""
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(layer.shape, generator=generator).to(device).to(memory_format=torch.channels_last)
    given.requires_grad_(layer.inner)
    output = layer.module(given)
    change = torch.rand(output.shape, generator=generator).to(device).to(memory_format=torch.channels_last)

    def forward() -> None:
        layer.module(given)
        wait(device)

    def gradient(*wanted: Tensor) -> None:
        torch.autograd.grad(output, wanted, change, retain_graph=True)
        wait(device)

    yield f"{layer.kind} forward", forward
    if layer.inner:
        yield f"{layer.kind} input gradient", partial(gradient, given)
    yield f"{layer.kind} weight gradient", partial(gradient, *layer.module.parameters())
    if isinstance(layer.module, SeparableConv2d):
        yield "spatial weight gradient", partial(gradient, *layer.module.depthwise.parameters())
        yield "channel weight gradient", partial(gradient, *layer.module.pointwise.parameters())
