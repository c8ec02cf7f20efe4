"""What learning a mixing costs: seconds of a training step, by what learns, and of the layers apart.

The paper's networks run a separable convolution as two (path ``factored``). Composed into one dense kernel, as these
networks are trained everywhere else here, its weight gradient is needed whatever learns, and the paper's effect is
gone: the composed rows stand beside the others and no claim speaks of them. A ConvMixer has nothing to compose; its
patch projection stays frozen in channels and in spatial.

A row is one round of a measurement in turns: ``seed`` is the round, in which every variant of a network takes one step
on random images of the recipe's size and batch (``timing.step_rounds``). Nothing is trained and no data is read. Rows
of layers say how long all depthwise (``spatial``) or all pointwise (``channel``) convolutions of the network take by
themselves: forward pass, gradient of the input, gradient of the weights; ``learned`` counts these weights, and their
gradient's time is what is divided by it.

The choices where the paper is silent: batch 128 for ResNets (32 for ConvMixer-128 at small scale), float32, the
optimizer's own step counts, reading and augmenting images does not.

**Source**: spatial-mixing, arXiv version, sections 4.1 ("Computational Considerations") and 4.2, figures 3 and 6. The
figures have no numbers. **Differs**: the paper does not say on what it measured; a claim is judged on the machine that
runs it, and its interval is over rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Cell, Column, Curve, Result, Table
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing import convmixer_depth
from passband.experiments.spatial_mixing.settings import LEARN, mixer, separable
from passband.experiments.timing import layer_rounds, model_of, step_rounds
from passband.sweeps.lab import Lab

ROUNDS = {Scale.SMOKE: 2, Scale.SMALL: 7, Scale.FULL: 20}
DATA = {Scale.SMOKE: "photos", Scale.SMALL: "fashion-mnist", Scale.FULL: "cifar10"}
PATHS = ("factored", "composed")
PASSES = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True)
class Network:
    """Name a network that is timed.

    Attributes:
        family: ``"ResNet"`` or ``"ConvMixer"``.
        depth: Blocks per stage, or blocks.
        settings: The scale whose size it has in ``settings``.
        batch: In place of that scale's.
    """

    family: str
    depth: int
    settings: Scale
    batch: int | None = None

    @property
    def name(self) -> str:
        """What it is called: ResNet-8 has 6 · 1 + 2 layers, ConvMixer-128/8 width 128 and depth 8."""
        return f"ResNet-{6 * self.depth + 2}" if self.family == "ResNet" else f"{self.size}/{self.depth}"

    @property
    def size(self) -> str:
        """What networks share that differ in depth alone: a line over depth."""
        width = self.recipe("everything").model.arguments["width"]
        return "ResNet" if self.family == "ResNet" else f"ConvMixer-{width}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The ways its separable convolutions can go; one without a name where there is no choice."""
        return PATHS if self.family == "ResNet" else ("",)

    def recipe(self, learn: str, path: str = "") -> Recipe:
        """Return the training whose step is timed."""
        make: Callable[..., Recipe] = separable if self.family == "ResNet" else mixer
        fields = make(self.settings, learn, data=DATA[self.settings], seed=0, depth=self.depth).plain()
        if path:
            fields["model"]["path"] = path
        return Recipe.of(fields | ({"batch": self.batch} if self.batch else {}))


NETWORKS = {
    Scale.SMOKE: (Network("ResNet", 1, Scale.SMOKE), Network("ConvMixer", 2, Scale.SMOKE)),
    Scale.SMALL: (
        Network("ResNet", 1, Scale.SMALL),
        Network("ConvMixer", 4, Scale.SMALL),
        Network("ConvMixer", 8, Scale.FULL, batch=32),
    ),
    Scale.FULL: (
        *(Network("ResNet", depth, Scale.FULL) for depth in (1, 2, 3, 5, 7, 9)),
        *(Network("ConvMixer", depth, Scale.FULL) for depth in convmixer_depth.DEPTHS[Scale.FULL]),
    ),
}


def cases(scale: Scale) -> list[Case]:
    """List what learns, and which layers, by network and path, round by round."""
    return [
        {"case": _name(network.name, path, what), "data": None, "seed": count}
        | {"network": network.name, "path": path, "what": what}
        for count in range(ROUNDS[scale])
        for network in NETWORKS[scale]
        for path in network.paths
        for what in (*LEARN, *_layers(path))
    ]


def _layers(path: str) -> tuple[str, ...]:
    return ("spatial layers", "channel layers", *(("composed layers",) if path == "composed" else ()))


def _name(network: str, path: str, what: str) -> str:
    return ", ".join(filter(None, (network, path, what)))


def measure(case: Case, lab: Lab) -> Measured:
    """Return one round's seconds; all rounds of a network are measured together, once."""
    network = next(one for one in NETWORKS[lab.scale] if one.name == case["network"])
    path, what = case["path"], case["what"]
    row = (_step if what in LEARN else _layer)(network, path, what, case["seed"], lab)
    return Measured(row | {"size": network.size, "depth": network.depth, "line": _name(network.size, path, what)})


def _step(network: Network, path: str, learn: str, count: int, lab: Lab) -> dict[str, Cell]:
    recipes = {_name("", way, what): network.recipe(what, way) for way in network.paths for what in LEARN}
    seconds = step_rounds(recipes, lab, ROUNDS[lab.scale])[_name("", path, learn)][count]
    learned = _learned(network, path, learn)
    return {"step": 1e3 * seconds, "learned": learned, "per parameter": 1e6 * seconds / learned}


def _layer(network: Network, path: str, what: str, count: int, lab: Lab) -> dict[str, Cell]:
    kind = what.removesuffix(" layers")
    rounds = layer_rounds(network.recipe("channels", path), lab, ROUNDS[lab.scale])
    seconds = {passed: rounds[f"{kind} {passed}"][count] for passed in PASSES if f"{kind} {passed}" in rounds}
    row: dict[str, Cell] = {passed: 1e3 * found for passed, found in seconds.items()}
    weights = _weights(network, path, kind)
    return row | {"learned": weights, "per parameter": 1e6 * seconds["weight gradient"] / weights}


@cache
def _learned(network: Network, path: str, learn: str) -> int:
    return model_of(network.recipe(learn, path))[1].learned


@cache
def _weights(network: Network, path: str, kind: str) -> int:
    """Count the weights of the spatial layers, of the channel layers, or of both together."""
    by_role = model_of(network.recipe("channels", path))[1].by_role
    return sum(sum(by_role[role]) for role in (("spatial", "channel") if kind == "composed" else (kind,)))


def more(rows: Rows, case: str, than: str, column: str) -> float | None:
    """Return by how much a case's number is larger than another's: 100 · ln of their ratio, which is near percent.

    A logarithm takes a disturbed round of either alike.
    """
    left, right = value(rows, case, column), value(rows, than, column)
    return None if left is None or right is None else 100 * math.log(left / right)


def _claim(network: str, path: str, name: str, sentence: str, place: str, compared: tuple[str, str, str]) -> Claim:
    case, than = (_name(network, path, what) for what in compared[:2])
    return Claim(
        f"{name}, {network}", sentence, f"spatial-mixing (arXiv), {place}, {network}",
        lambda rows: more(rows, case, than, compared[2]), unit="%", over="rounds",
    )  # fmt: skip


_LONGER = "Fully-learned networks take significantly longer to train than those with frozen spatial or channel mixing."
_DEARER = "Learnable spatial-mixing parameters have a higher computational cost than learnable channel-mixing ones."

_RESNET: Mapping[str, tuple[str, tuple[str, str, str]]] = {
    "everything longer than channels": (_LONGER, ("everything", "channels", "step")),
    "everything longer than spatial": (_LONGER, ("everything", "spatial", "step")),
    "spatial dearer per parameter than everything": (
        "Spatial-only networks have a much higher ratio of compute time per trainable parameter than full ones.",
        ("spatial", "everything", "per parameter"),
    ),
    "channels cheaper per parameter than everything": (
        "Channels-only networks have a lower ratio of train time to trainable parameters than fully-learned ones.",
        ("everything", "channels", "per parameter"),
    ),
    "a spatial weight dearer than a channel weight": (_DEARER, ("spatial layers", "channel layers", "per parameter")),
}

_MIXER: Mapping[str, tuple[str, tuple[str, str, str]]] = {
    "everything longer than channels": (
        "There is significant speedup when not learning the spatial mixing.", ("everything", "channels", "step"),
    ),
    "spatial dearer per parameter than channels": (
        "Spatial-learning ConvMixers have a much higher ratio of train time to parameters than channel-learning ones.",
        ("spatial", "channels", "per parameter"),
    ),
    "channels faster than spatial": (
        "Channel-learning ConvMixers train in significantly shorter time despite more trainable parameters.",
        ("spatial", "channels", "step"),
    ),
    "spatial layers take more of the training": (
        "A much larger portion of the train time is taken up by the spatial mixing parameters than the channel ones: "
        "here by their weight gradients.",
        ("spatial layers", "channel layers", "weight gradient"),
    ),
}  # fmt: skip


def _claims() -> list[Claim]:
    names = dict.fromkeys((n.name, n.family) for scale in (Scale.SMALL, Scale.FULL) for n in NETWORKS[scale])
    found = []
    for name, family in names:
        path, place = ("factored", "section 4.1, figure 3") if family == "ResNet" else ("", "section 4.2, figure 6")
        for claim, (sentence, compared) in (_RESNET if family == "ResNet" else _MIXER).items():
            found.append(_claim(name, path, claim, sentence, place, compared))
    return found


def figures(rows: Rows) -> tuple[Result, ...]:
    """Return the medians over rounds, and, where there are several depths, the paper's lines over depth."""
    return (_summary(rows), *_over_depth(rows))


NUMBERS = (
    Column(name="step", unit="ms"), Column(name="learned", unit="parameters"),
    Column(name="per parameter", unit="µs"), *(Column(name=name, unit="ms") for name in PASSES),
)  # fmt: skip


def _summary(rows: Rows) -> Table:
    names = dict.fromkeys(str(row["case"]) for row in rows)
    columns = [Column(name="case")]
    for column in NUMBERS:
        ends = () if column.name == "learned" else ("least", "most")
        columns += [column, *(Column(name=f"{column.name}, {end}", unit=column.unit) for end in ends)]
    cells = [(name, *_middle([row for row in rows if row["case"] == name])) for name in names]
    return Table(
        name="summary", title="Seconds of a training step and of its layers: median, least and most over rounds",
        columns=tuple(columns), rows=tuple(cells),
    )  # fmt: skip


def _middle(rows: Rows) -> list[Cell]:
    """Return median, least and most of each column; a count is the same in every round."""
    cells: list[Cell] = []
    for column in NUMBERS:
        numbers: list[Any] = [row[column.name] for row in rows if row.get(column.name) is not None]
        if column.name == "learned":
            cells.append(numbers[0])
        else:
            cells += [median(numbers), min(numbers), max(numbers)] if numbers else [None] * 3
    return cells


def _over_depth(rows: Rows) -> tuple[Curve, ...]:
    """Draw seconds, and seconds per parameter, of networks that differ in depth alone."""
    drawn: list[Curve] = []
    depth, (step, _, per_parameter) = Column(name="depth"), NUMBERS[:3]
    for size in dict.fromkeys(str(row["size"]) for row in rows):
        found = [row for row in rows if row["size"] == size and row.get("step") is not None]
        if len({row["depth"] for row in found}) > 1:
            for column in (step, per_parameter):
                title = f"{size}: {column.name} over depth"
                drawn += over(found, depth, column, by="line", name=f"{size}.{column.name}", title=title)
    return tuple(drawn)


EXPERIMENT = Experiment(
    title="What learning a mixing costs: a training step and its layers (seed: the round of the measurement)",
    source="spatial-mixing, arXiv version, figures 3 and 6",
    columns=NUMBERS,
    cases=cases,
    measure=measure,
    timed=True,
    claims=_claims(),
    figures=figures,
)
