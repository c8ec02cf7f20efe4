"""Compare robust accuracy and its speed with torchattacks, foolbox and ART, on two ResNet-20 of benchmarks/networks.

Ours is ``robust_accuracy``; theirs attack the whole batch and evaluate the model once, as their users do. Every
round runs every variant once; a comparison whose rounds take longer than the budget has fewer of them. How many
images stand is counted in every run, and the command fails where ours and theirs differ by more than one image.
With ``--profile``: what the model is asked, how many rows at a time, how long, and the operations that take longest.
bf16 is several times slower than float32 on a processor that cannot multiply it; the first line says whether it can.

    pip install -e '.[bench]'                        # foolbox and ART
    pip install --no-deps torchattacks==3.5.1        # alone: it asks for a requests of 2021
    PASSBAND_DATA=DIR python -m benchmarks.attacks [--json FILE] [--quick] [--device cuda] [--only TEXT] [--profile]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.model_calls import Calls, watched
from benchmarks.rival_attacks import LEARNING_RATE, RIVALS, STEPS, Standing, present
from benchmarks.side_by_side import Pair, compare, parser, report
from passband.attacks.evaluate import RobustAccuracy, robust_accuracy
from passband.attacks.registry import Attack, make
from passband.core.recipe import Recipe
from passband.data import catalog
from passband.experiments.timing import interleaved
from passband.models.create import create
from passband.train.device import hardware_class, torch_device

NETWORKS = Path(__file__).parent / "networks"
COUNT = 256
OURS = "passband"
Verdict = Literal["any", "last"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Setting:
    """Name one attack on one network, and whom it is compared with.

    Attributes:
        network: A recipe and its weights in ``benchmarks/networks``.
        attack: By its name in passband.
        level: ε in gray levels; CW has none.
        targets: The least ratio that is asked for on two CPU cores, None where none is, by rival.
        verdict: What fallen means to ours: any iterate fools the model, or the last one, which is theirs.
        precision: Of our gradients; verdicts are always in float32.
        same: Whether it is one algorithm, so that the same images must stand, but for one.
    """

    network: str
    attack: str
    level: float = 8.0
    targets: Mapping[str, float | None] = field(default_factory=dict)
    verdict: Verdict = "any"
    precision: Precision = "float32"
    same: bool = True

    @property
    def eps(self) -> float:
        """Radius, pixels in [0, 1]."""
        return self.level / 255

    @property
    def name(self) -> str:
        """Say it for people."""
        title = self.attack.upper() + ("" if self.attack == "fgsm" else f"-{STEPS}")
        bound = "" if self.attack == "cw" else f", ε {self.level:g}/255"
        if not self.same:
            title += f" of {next(iter(self.targets))}"
        return f"{title}, {self.network} network{bound}{', bf16 gradients' if self.precision == 'bf16' else ''}"


HALF = 2.4
"""Gray levels at which PGD-20 leaves half of the images of the natural network: 141 of 256 at 2.25, 126 at 2.4."""

THREE_QUARTERS = 6.0
"""Gray levels at which it leaves three quarters under the adversarially trained one: 196 at 4, 193 at 6, 184 at 8."""


def settings() -> list[Setting]:
    """Return all comparisons, the targets those of the project's issue on attacks."""
    everyone = {"torchattacks": None, "foolbox": 3.0, "ART": 3.0}
    no_target = {"torchattacks": None, "foolbox": None, "ART": None}
    found = [
        Setting("natural", "pgd", 8.0, everyone | {"torchattacks": 6.0}),
        Setting("natural", "pgd", HALF, everyone | {"torchattacks": 2.3}),
        Setting("adversarial", "pgd", THREE_QUARTERS, everyone | {"torchattacks": 1.8}),
        Setting("natural", "pgd", HALF, {"torchattacks": 3.2}, precision="bf16"),
    ]
    for network, level in (("natural", HALF), ("adversarial", THREE_QUARTERS)):
        found += [
            Setting(network, "fgsm", level, no_target | {"torchattacks": 1.3}),
            Setting(network, "bim", level, no_target),
            Setting(network, "tpgd", level, {"torchattacks": None}, verdict="last"),
            Setting(network, "cw", targets={"torchattacks": 1.9}, verdict="last"),
            Setting(network, "cw", targets={"foolbox": None}, verdict="last", same=False),
            Setting(network, "cw", targets={"ART": None}, verdict="last", same=False),
        ]
    return found


def our_attack(name: str, eps: float, seed: int) -> Attack:
    """Return passband's attack with the options that the rivals are given; theirs draw another start in every run."""
    iterated = {"eps": eps, "alpha": eps / 4, "steps": STEPS}
    chosen: dict[str, dict[str, Any]] = {
        "fgsm": {"eps": eps},
        "bim": iterated,
        "cw": {"c": 1, "kappa": 0, "steps": STEPS, "lr": LEARNING_RATE, "compat": "torchattacks-3.5.1"},
    }
    return make(name, chosen.get(name, iterated | {"seed": seed}))


def network(name: str, device: str) -> nn.Module:
    """Return a network of ``benchmarks/networks``, its normalization inside."""
    recipe = Recipe.read(NETWORKS / f"{name}.yaml")
    weights = NETWORKS / f"{name}.safetensors"
    model = create(recipe.model.name, classes=10, size=recipe.data.size, weights=weights, **recipe.model.arguments)
    return model.eval().to(device)


@dataclass
class Subject:
    """Hold what is attacked.

    Attributes:
        device: Where it lies.
        images: float32 [N, 3, 32, 32] in [0, 1], in torch's default layout.
        labels: int64 [N].
        networks: By name.
    """

    device: str
    images: Tensor
    labels: Tensor
    networks: dict[str, nn.Module]

    @classmethod
    def of(cls, count: int, device: str, names: Iterable[str]) -> Subject:
        """Load the first images of Fashion-MNIST's test set (in passband's fixed order) and those networks."""
        dataset = catalog.load("fashion-mnist", "test", size=(32, 32), limit=count)
        ((images, labels),) = dataset.batches(count, device=device)
        return cls(device, images.contiguous(), labels, {name: network(name, device) for name in names})

    def ours(self, setting: Setting, verdict: Verdict, precision: Precision, seed: int = 0) -> RobustAccuracy:
        """Measure with passband."""
        attack = our_attack(setting.attack, setting.eps, seed)
        batches = [(self.images, self.labels)]
        model = self.networks[setting.network]
        return robust_accuracy(model, batches, attack, [setting.eps], verdict=verdict, precision=precision)

    def theirs(self, setting: Setting, rival: str) -> Standing:
        """Prepare a rival."""
        model = self.networks[setting.network]
        return RIVALS[rival](model, setting.attack, setting.eps, self.images, self.labels)


def compare_one(
    setting: Setting, subject: Subject, rivals: list[str], rounds: int, budget: float
) -> list[dict[str, Any]]:
    """Time one attack on one network against those rivals that are there; print who stands."""
    measured: list[RobustAccuracy] = []
    found: dict[str, list[Tensor]] = {name: [] for name in rivals}

    def counted(name: str, run: Standing) -> Callable[[], None]:
        return lambda: found[name].append(run())

    variants = {name: counted(name, subject.theirs(setting, name)) for name in rivals}
    variants[OURS] = lambda: measured.append(
        subject.ours(setting, setting.verdict, setting.precision, seed=len(measured))
    )
    times = interleaved(variants, rounds, budget=budget)
    first, count = measured[0], len(subject.images)
    standing = {OURS: [int(one.correct.sum()) for one in measured]}
    # What the model gets wrong untouched has fallen by our reading, even where an attack leads it to the label.
    standing |= {name: [int((stands.numpy() & first.clean).sum()) for stands in runs] for name, runs in found.items()}
    _show(setting, times, standing, count)
    for name, runs in found.items():
        lucky = [int((stands.numpy() & ~first.clean).sum()) for stands in runs]
        print(f"{name}: {_span(lucky)} more were wrong untouched and right afterwards")
    last = standing[OURS]
    if setting.attack != "cw":  # whose answer is its best iterate
        other: Verdict = "last" if setting.verdict == "any" else "any"
        beside = subject.ours(setting, other, "float32").correct
        last = [int(beside.sum())] if other == "last" else last
        print(
            f"{OURS}: {standing[OURS][0]} stand by the verdict '{setting.verdict}', {int(beside.sum())} by '{other}' "
            f"(float32, not timed); they differ on {int((beside != first.correct).sum())} of {count} images"
        )
    print()
    rows = []
    for name in rivals:
        target = setting.targets[name] if subject.device == "cpu" else None
        note = f"{_span(standing[OURS])} of {count} images stand under ours, {_span(last)} by the last iterate, "
        note += f"{_span(standing[name])} under theirs" + ("" if setting.same else ", another algorithm")
        row = compare(Pair(f"{setting.name}, against {name}", OURS, name, target, note), times, "s")
        speed = {"ours": count / row["ours"], "theirs": count / row["theirs"]}
        stand = {"ours": standing[OURS], "ours, last iterate": last, "theirs": standing[name], "of": count}
        equal = not setting.same or _agree(standing[OURS], last, standing[name])
        where = {"device": hardware_class(subject.device), "threads": torch.get_num_threads(), "bf16": bf16_units()}
        rows.append(row | where | {"images per second": speed, "standing": stand, "equal": equal})
    return rows


def _agree(ours: list[int], last: list[int], theirs: list[int]) -> bool:
    """Tell whether as many images stand, but for one, under ours and theirs, which draw other starts in every run.

    The last iterates are compared; the verdict that was timed may be stricter, never kinder.
    """
    low, high = min(theirs) - 1, max(theirs) + 1
    return max(last) >= low and min(last) <= high and min(ours) <= high


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _show(setting: Setting, times: Mapping[str, list[float]], standing: Mapping[str, list[int]], count: int) -> None:
    table = Table("variant", "standing", "robust accuracy", "images/s", "min", "max", title=setting.name)
    for name, values in times.items():
        speeds = [count / value for value in values]
        accuracy = f"{statistics.mean(standing[name]) / count:.4f}"
        numbers = (f"{number:.1f}" for number in (statistics.median(speeds), min(speeds), max(speeds)))
        table.add_row(name, _span(standing[name]), accuracy, *numbers)
    Console().print(table)


def profile(setting: Setting, subject: Subject, rivals: list[str]) -> None:
    """Print what the model is asked, and where the time goes, under ours and under torchattacks."""
    count = len(subject.images)
    found: list[RobustAccuracy] = []

    def ours() -> None:
        found[:] = [subject.ours(setting, setting.verdict, setting.precision)]

    variants: dict[str, Callable[[], object]] = {OURS: ours}
    if "torchattacks" in rivals:
        variants["torchattacks"] = subject.theirs(setting, "torchattacks")
    for name, run in variants.items():
        run()
        with watched() as calls:
            run()
        _show_calls(f"{setting.name}: what {name} asks the model", calls)
        if name == OURS:
            needed = int(found[0].queries.sum())
            print(f"  the search of {count} images needed {needed} queries, {needed / count:.1f} an image")
    activities = [torch.profiler.ProfilerActivity.CPU]
    if subject.device != "cpu":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    for name, run in variants.items():
        with torch.profiler.profile(activities=activities) as recorded:
            run()
        where = "cpu" if subject.device == "cpu" else "cuda"
        print(f"\n{setting.name}, {name}, by operation:")
        print(recorded.key_averages().table(f"self_{where}_time_total", row_limit=14, max_name_column_width=40))


def _show_calls(title: str, calls: Calls) -> None:
    table = Table("query", "format", "rows", "calls", "seconds", "ms a row", title=title)
    for query in sorted(calls.count, reverse=True):
        times, seconds = calls.count[query], calls.seconds[query]
        kind = "gradient" if query.gradient else "forward alone"
        each = f"{1000 * seconds / (times * query.rows):.2f}"
        table.add_row(kind, query.kind, str(query.rows), str(times), f"{seconds:.2f}", each)
    Console().print(table)
    inside = sum(calls.seconds.values())
    print(
        f"  {calls.rows(True)} rows with a gradient, {calls.rows(False)} without; {inside:.2f} s in the model, "
        f"{calls.total - inside:.2f} s for the rest"
    )


def bf16_units() -> str:
    """Say with what this processor multiplies bf16; one without is slower at it than at float32."""
    return ", ".join(name for name, has in torch.cpu.get_capabilities().items() if "bf16" in name and has) or "none"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    reader = parser(__doc__ or "")
    reader.add_argument("--device", default="cpu", help="cpu, cuda or auto; targets are for two CPU cores")
    reader.add_argument("--only", default="", help="comparisons whose name holds this text, such as PGD-20")
    reader.add_argument("--skip", default="", help="comparisons to leave out, by such texts, comma between")
    reader.add_argument("--rivals", default="torchattacks,foolbox,ART", help="whom to compare with")
    reader.add_argument("--budget", type=float, default=300.0, help="seconds after which a comparison begins no round")
    reader.add_argument("--profile", action="store_true", help="show where the time of PGD-20 (or of --only) goes")
    return reader.parse_args()


def main() -> None:
    """Run the whole comparison, or the profile."""
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    np.random.seed(0)
    device = torch_device(chosen.device)
    count, rounds, budget = (32, 1, math.inf) if chosen.quick else (COUNT, 7, chosen.budget)
    print(f"{hardware_class(device)}; {chosen.threads} threads; bf16 in the processor: {bf16_units()}")
    there = [name for name in present() if name in chosen.rivals.split(",")]
    left_out = [text.strip().lower() for text in chosen.skip.split(",") if text.strip()]
    wanted = [setting for setting in settings() if chosen.only.lower() in setting.name.lower()]
    wanted = [setting for setting in wanted if not any(text in setting.name.lower() for text in left_out)]
    if chosen.profile and not chosen.only:
        wanted = [setting for setting in wanted if setting.attack == "pgd"]
    subject = Subject.of(count, device, {setting.network for setting in wanted})
    comparisons: list[dict[str, Any]] = []
    for setting in wanted:
        rivals = [name for name in setting.targets if name in there]
        if chosen.profile:
            profile(setting, subject, rivals)
        elif rivals:
            comparisons += compare_one(setting, subject, rivals, rounds, budget)
    if chosen.profile:
        return
    report(comparisons, chosen.json)
    unequal = [f"{row['name']}: {row['note']}" for row in comparisons if not row["equal"]]
    if unequal:
        sys.exit("robust accuracy differs by more than one image:\n" + "\n".join(unequal))


if __name__ == "__main__":
    main()
