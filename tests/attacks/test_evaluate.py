"""Robust accuracy does not depend on how the data set was cut, and counts as it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.attacks import evaluate, shards
from passband.attacks.auto_pgd import APGD, APGDT
from passband.attacks.carlini_wagner import CW
from passband.attacks.cascade import STANDS, WRONG, Verdict, cascade
from passband.attacks.evaluate import RobustAccuracy, robust_accuracy
from passband.attacks.fab import FAB
from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import FGSM, PGD
from passband.attacks.noise import GN
from passband.attacks.pool import Outcome, pooled
from passband.attacks.registry import Attack
from passband.attacks.search import Rows
from passband.attacks.smallest import SmallestPGD
from passband.attacks.square import Square
from passband.attacks.trades import TPGD
from passband.attacks.walk import Walk
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.core.statistics import wilson
from passband.models.state import frozen

EPS = (0.0, 1 / 255, 4 / 255, 16 / 255)


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A float32 network with running statistics, and labels that it gets right on most images."""
    torch.manual_seed(1)
    layers = (
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
    )
    model = nn.Sequential(*layers, nn.Linear(8 * 5 * 5, 4))
    images = torch.randint(0, 256, (90, 3, 16, 16)) / 255
    with torch.no_grad():
        model(images)
        targets = model.eval()(images).argmax(1)
    targets[::9] = (targets[::9] + 1) % 4
    return model, images, targets


def cut(images: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(size), targets.split(size), strict=True))


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=5)], ids=lambda attack: type(attack).__name__)
def test_same_verdicts_at_every_batch_size_and_order(attack: FGSM | PGD) -> None:
    model, images, targets = problem()
    found = robust_accuracy(model, cut(images, targets, 90), attack, EPS, working_batch=16)
    assert found.accuracy[0] == found.clean.mean() == 80 / 90 and 0 < found.accuracy[2] < found.accuracy[1]
    for size in (1, 7):
        other = robust_accuracy(model, cut(images, targets, size), attack, EPS, working_batch=16)
        assert np.array_equal(other.correct, found.correct)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    other = robust_accuracy(model, cut(images[order], targets[order], 32), attack, EPS, working_batch=16)
    assert np.array_equal(other.correct, found.correct[:, order.numpy()])


def test_only_images_that_are_right_are_attacked() -> None:
    model, images, targets = problem()
    asked: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched:
        """An attack that cannot be taken apart: it gets whole batches."""

        mode: Literal["eval"] = "eval"

        def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            asked.append(images)
            return FGSM(4 / 255)(model, images, labels)

        def at(self, eps: float, *, scale: bool = True) -> Watched:
            return self

    found = robust_accuracy(model, cut(images, targets, 90), Watched(), [4 / 255], working_batch=20)
    assert [len(batch) for batch in asked] == [20, 20, 20, 20]
    assert torch.equal(torch.cat(asked), images[torch.from_numpy(found.clean)])
    assert not found.correct[0][~found.clean].any()
    same = robust_accuracy(model, cut(images, targets, 90), FGSM(), [4 / 255], working_batch=20)
    assert np.array_equal(same.correct, found.correct) and np.allclose(same.linf, found.linf)


def test_intervals_are_wilsons() -> None:
    model, images, targets = problem()
    found = robust_accuracy(model, cut(images, targets, 90), FGSM(), [0])
    assert found.intervals() == (wilson(80, 90),)


def test_model_is_left_as_it_was() -> None:
    model, images, targets = problem()
    model[1].train()
    modes = [part.training for part in model.modules()]
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    robust_accuracy(model, cut(images, targets, 32), PGD(steps=1), [4 / 255])
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: ([], FGSM(), [0.1]), "there is no image"),
        (lambda x, y: ([(x * 2, y)], FGSM(), [0]), r"\[0, 1\] is needed"),
        (lambda x, y: ([(x, y + 4)], FGSM(), [0.1]), "labels lie in 0 to 3"),
        (lambda x, y: ([(x, y)], FGSM(), [4]), "write 4/255"),
        (lambda x, y: ([(x, y)], PGD(mode="train"), [0.1]), "evaluation mode"),
        (lambda x, y: ([(x, y)], [], [0.1]), "there is no attack"),
        (lambda x, y: ([(x, y)], [PGD(), PGD(0.1)]), "different eps"),
        (lambda x, y: ([(x, y)], [PGD(), PGDL2()], 0.5), "different norms"),
        (lambda x, y: ([(x, y)], PGD(), []), "there is no eps"),
        (lambda x, y: ([(x, y)], SmallestPGD(), [8]), "write 8/255"),
        (lambda x, y: ([(x, y)], PGD, [0.1]), r"values such as PGD\(\)"),
        (lambda x, y: ([(x, y), (x[:, :, 1:], y)], PGD(), [0.1]), "one size"),
    ],
)
def test_refuses(change, message: str) -> None:
    model, images, targets = problem()
    with pytest.raises(PassbandError, match=message):
        robust_accuracy(model, *change(images, targets))


MANY = (
    PGD(steps=6),
    PGD(steps=6, band=Band.disc(4)),
    PGDL2(1.0, alpha=None, steps=6),
    APGD(steps=6),
    CW(steps=8, c=20),
    Square(n_queries=12),
    FAB(steps=4),
    TPGD(steps=6),
)


@pytest.mark.parametrize(
    ("attack", "verdict"),
    [*((attack, "any") for attack in MANY), (PGD(steps=6), "last"), (CW(steps=8, c=20), "last")],
    ids=lambda value: type(value).__name__,
)
def test_every_search_gives_the_same_bits_however_it_is_cut(attack: Attack, verdict: Verdict) -> None:
    model, images, targets = problem()
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    eps = [0.2 if isinstance(attack, PGDL2) else (8 if getattr(attack, "band", None) else 3) / 255]

    def measured(images: Tensor, targets: Tensor, size: int) -> RobustAccuracy:
        return robust_accuracy(model, cut(images, targets, size), attack, eps, working_batch=16, verdict=verdict)

    one, other = measured(images, targets, 90), measured(images[order], targets[order], 7)
    assert 0 < one.accuracy[0] < one.clean.mean() and not one.batch_dependence
    for name in ("fell_to", "prediction", "l2", "linf", "queries"):
        assert np.array_equal(getattr(one, name)[:, order.numpy()], getattr(other, name)), name


def test_last_verdict_is_that_of_the_plain_call() -> None:
    model, images, targets = problem()
    attack = PGD(4 / 255, steps=5)
    adversarial = attack(model, images, targets)
    predicted = model.eval()(adversarial).argmax(1)
    found = robust_accuracy(model, cut(images, targets, 32), attack, verdict="last", folding=False)
    right = found.clean
    assert found.eps == (4 / 255,)
    assert np.array_equal(found.correct[0], right & (predicted == targets).numpy())
    assert np.array_equal(found.prediction[0][right], predicted.numpy()[right])
    change = (adversarial - images).detach()
    assert np.allclose(found.l2[0][right], change.flatten(1).norm(dim=1).numpy()[right], atol=1e-5)
    assert np.allclose(found.linf[0][right], change.abs().flatten(1).amax(1).numpy()[right], atol=1e-6)
    assert (found.queries[0][right] == 5).all() and (found.queries[0][~right] == 0).all()


def test_any_verdict_breaks_more_and_asks_less() -> None:
    model, images, targets = problem()
    attack = PGD(4 / 255, steps=10)
    some, last = (robust_accuracy(model, cut(images, targets, 90), attack, verdict=v) for v in ("any", "last"))
    assert not (some.correct & ~last.correct).any()
    assert some.queries.sum() < last.queries.sum() == 10 * last.clean.sum()
    assert (some.verdict, last.verdict) == ("any", "last")


@pytest.mark.parametrize(
    "attack", [PGD(2 / 255, steps=4), PGD(2 / 255, steps=4, n_restarts=3), Square(eps=2 / 255, n_queries=15)], ids=str
)
def test_what_the_model_refutes_goes_on(attack: PGD | Square) -> None:
    """A faster form that errs everywhere proposes at once; the model itself decides, and the search goes on."""
    model, images, targets = problem()
    model.eval()
    right = model(images).argmax(1) == targets
    images, targets = images[right], targets[right]

    class Liar(nn.Module):
        """Answers a class that is not there, whatever it sees."""

        def __init__(self, honest: nn.Module) -> None:
            super().__init__()
            self.honest = honest

        def forward(self, images: Tensor) -> Tensor:
            logits = self.honest(images)
            return torch.cat((logits, logits[:, :1] + 1e4), 1)

    outcome, search = Outcome.of(len(images)), attack.search()
    with frozen(model):
        found = pooled(search, Liar(model), model, images, targets, model(images), outcome, size=16, early=True)
        assert sorted(found) == list(range(len(images)))
    assert torch.equal(outcome.stands, outcome.prediction == targets) and 0 < int(outcome.stands.sum()) < len(images)
    assert (outcome.queries[outcome.stands] == search.queries).all() and (outcome.queries[~outcome.stands] > 0).all()


def test_worst_case_asks_each_attack_about_what_still_stands() -> None:
    model, images, targets = problem()
    batches = cut(images, targets, 90)
    attacks = (FGSM(), PGD(steps=10), Square(n_queries=20))
    found = robust_accuracy(model, batches, attacks, [0, 3 / 255])
    alone = [robust_accuracy(model, batches, attack, [0, 3 / 255]) for attack in attacks]
    worst = alone[0].correct & alone[1].correct & alone[2].correct
    assert np.array_equal(found.correct, worst)
    assert found.after(0)[1] == alone[0].accuracy[1] and found.after(2) == found.accuracy
    assert found.after(0)[1] >= found.after(1)[1] >= found.after(2)[1]
    assert np.array_equal(found.fell_to[1] == 0, alone[0].clean & ~alone[0].correct[1])
    assert set(found.fell_to[0]) == {STANDS, WRONG}


def test_unbounded_attacks_have_one_verdict_and_smallest_ones_a_curve() -> None:
    model, images, targets = problem()
    batches = cut(images, targets, 45)
    noise = robust_accuracy(model, batches, GN(0.3), [0, 1 / 255, 8 / 255])
    assert np.array_equal(noise.correct[1], noise.correct[2]) and noise.accuracy[1] < noise.accuracy[0]
    assert robust_accuracy(model, batches, GN(0.3)).eps == (float("inf"),)
    assert robust_accuracy(model, batches, FAB(eps=None, steps=1)).eps == (0.3,)
    smallest = robust_accuracy(model, batches, SmallestPGD(steps=5), [0, 1 / 255, 4 / 255, 1.0])
    broken = smallest.linf[3] > 0
    for row, eps in zip(smallest.correct[1:], smallest.eps[1:], strict=True):
        assert np.array_equal(row, smallest.clean & (~broken | (smallest.linf[3] > eps)))


def test_targeted_attacks_lead_to_the_least_likely_class() -> None:
    model, images, targets = problem()
    found = robust_accuracy(model, cut(images, targets, 90), PGD(targeted=True, steps=20), [32 / 255])
    goals = model.eval()(images).argmin(1).numpy()
    fell = found.clean & ~found.correct[0]
    assert fell.any() and np.array_equal(found.prediction[0][fell], goals[fell])


def test_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, targets = problem()
    monkeypatch.setattr(shards, "COUNT", 30)
    whole = robust_accuracy(model, cut(images, targets, 10), PGD(steps=5), [2 / 255, 4 / 255])
    done, allowed = [], 2

    def stop(*arguments: Any) -> Any:
        if len(done) == allowed:
            raise KeyboardInterrupt
        done.append(arguments)
        return cascade(*arguments)

    monkeypatch.setattr(evaluate, "cascade", stop)

    def measured(steps: int) -> RobustAccuracy:
        eps = [2 / 255, 4 / 255]
        return robust_accuracy(model, cut(images, targets, 10), PGD(steps=steps), eps, resume=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        measured(5)
    assert len(list(tmp_path.iterdir())) == 2
    allowed = 9
    again = measured(5)
    assert len(done) == 3
    for name in ("clean", "fell_to", "prediction", "l2", "linf", "queries"):
        assert np.array_equal(getattr(again, name), getattr(whole, name))
    measured(6)  # another question
    assert len(done) == 6
    for path in tmp_path.iterdir():
        path.write_bytes(b"no")
    with pytest.raises(PassbandError, match="damaged; remove"):
        measured(5)


def _doubts(model: nn.Module, *attacks: Attack, eps: float = 4 / 255) -> set[str]:
    _, images, targets = problem()
    with torch.no_grad():
        targets = model.eval()(images).argmax(1)
    return {doubt.name for doubt in robust_accuracy(model, cut(images, targets, 90), attacks, [eps]).doubts}


def test_doubts() -> None:
    plain = problem()[0].eval()
    assert _doubts(plain, PGD(steps=10)) == set()
    # Their losses change from goal to goal, which is no fall.
    assert _doubts(plain, APGDT(steps=4, n_classes=4), FAB(steps=4, multi_targeted=True, n_classes=4)) == set()
    assert "softmax" in _doubts(nn.Sequential(plain, nn.Softmax(1)), PGD(steps=2))

    class Rounded(nn.Module):
        """Sees pixels rounded to an eighth: no gradient, yet a random search can fool it."""

        def forward(self, images: Tensor) -> Tensor:
            return plain((images * 8).round() / 8)

    assert _doubts(Rounded(), PGD(steps=2), Square(n_queries=60), eps=32 / 255) == {"zero gradient", "black box wins"}

    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return plain(images) + torch.randn(len(images), 4)

    assert "random model" in _doubts(Noisy(), PGD(steps=2))

    class Away(Walk):
        """Walks down where it should climb."""

        def losses(self, logits: Tensor, rows: Rows) -> Tensor:
            self.__dict__.setdefault("seen", []).append(1)
            return super().losses(logits, rows) * (1 if len(self.__dict__["seen"]) == 1 else -1)

    @dataclass(frozen=True)
    class Lost(PGD):
        def search(self) -> Walk:
            plan = super().search()
            return Away(**{name: getattr(plan, name) for name in ("threat", "alpha", "steps")})

    assert "loss fell" in _doubts(plain, Lost(steps=3))


def test_batch_dependence_is_said() -> None:
    model, images, targets = problem()
    batches = cut(images, targets, 45)
    (why,) = robust_accuracy(model, batches, CW(steps=5, compat="torchattacks-3.5.1")).batch_dependence
    assert why == "CW couples the images of a batch"
    model[1] = nn.BatchNorm2d(8, track_running_stats=False)
    said = robust_accuracy(model, batches, FGSM(), [0.01]).batch_dependence
    assert "the model normalizes by the statistics of each batch" in said


def test_coupled_attacks_get_the_callers_batches() -> None:
    model, images, targets = problem()
    attack = CW(steps=6, c=20, compat="torchattacks-3.5.1")
    found = robust_accuracy(model, cut(images, targets, 45), attack, folding=False)
    model.eval()
    points = torch.cat([attack(model, *batch) for batch in cut(images, targets, 45)])
    assert np.array_equal(found.correct[0], found.clean & (model(points).argmax(1) == targets).numpy())


def test_an_attack_must_return_images() -> None:
    @dataclass(frozen=True)
    class Broken:
        mode: Literal["eval"] = "eval"

        def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            return images + 1

        def at(self, eps: float, *, scale: bool = True) -> Broken:
            return self

    model, images, targets = problem()
    with pytest.raises(PassbandError, match="Broken must return as many images in"):
        robust_accuracy(model, cut(images, targets, 90), Broken(), [0.1])


def test_a_model_that_views_its_features_is_measured() -> None:
    """``view`` needs its tensor in torch's default layout, and tutorials are full of it."""
    torch.manual_seed(0)

    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 14 * 14, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(images)).view(len(images), -1))

    model = Viewing().eval()
    _, images, _ = problem()
    targets = model(images).argmax(1)
    found = robust_accuracy(model, cut(images, targets, 90), [FGSM(), SmallestPGD(steps=3)], [4 / 255])
    assert found.clean.all() and found.how["layout"] == "channels_first"


def test_a_model_without_gradients_is_named() -> None:
    model, images, targets = problem()
    model.eval()

    class Closed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return model(images)

    with pytest.raises(PassbandError, match=r"no gradient reaches the images .* attack with square"):
        robust_accuracy(Closed(), cut(images, targets, 90), PGD(), [0.1])
    assert robust_accuracy(Closed(), cut(images, targets, 90), Square(n_queries=5), [0.1]).accuracy[0] < 1
