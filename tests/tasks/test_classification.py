"""What a loss, a score and a prediction mean, and that a model comes back as it was lent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.tasks.classification import correct, loss, predict, predicted_targets, untouched, wilson


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(
    ("successes", "n", "level", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.95, 0.2553, 0.3662),
        (15, 148, 0.95, 0.0624, 0.1605),
        (0, 20, 0.95, 0.0, 0.1611),
        (1, 29, 0.95, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_values(successes: int, n: int, level: float, low: float, high: float) -> None:
    assert tuple(round(end, 4) for end in wilson(successes, n, level)) == (low, high)
    assert tuple(round(1 - end, 4) for end in reversed(wilson(n - successes, n, level))) == (low, high)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0 and wilson(7, 7)[1] == 1.0
    for arguments in ((3, 2), (-1, 2), (1, 2, 1.0)):
        with pytest.raises(PassbandError):
            wilson(*arguments)


def test_untouched_gives_back_modes_flags_and_gradients() -> None:
    model = network().train()
    model[1].eval()
    model[3].bias.requires_grad_(False)
    gradient = torch.full_like(model[0].weight, 2.0)
    model[0].weight.grad = gradient
    with pytest.raises(KeyError), untouched(model):
        assert not any(part.training for part in model.modules())
        # Gradients can be taken inside, and do not add to the owner's.
        model(torch.rand(2, 3, 6, 6)).sum().backward()
        model[3].bias.requires_grad_(True)
        model[2].train()
        raise KeyError
    assert [part.training for part in model] == [True, False, True, True]
    assert not model[3].bias.requires_grad and model[0].weight.requires_grad
    assert model[0].weight.grad is gradient and bool((gradient == 2).all())
    assert model[3].weight.grad is None


def test_predicted_targets_keep_the_order() -> None:
    model, images = network(), torch.rand(7, 3, 6, 6)
    found = predicted_targets(model, [(part, torch.full((len(part),), -1)) for part in images.split(3)])
    assert found.dtype == torch.int64 and torch.equal(found, model.eval()(images).argmax(1))
    assert correct(model(images), found).all()


@pytest.mark.parametrize("bad", [float("nan"), None])
def test_refuses_what_is_no_prediction(bad: float | None) -> None:
    model, message = network(), "the model gives NaN"
    if bad is None:
        model, message = model[:1], r"logits \[2, classes\] for 2 images; this model gave \[2, 4, 4, 4\]"
    else:
        model[3].weight.data[0, 0] = bad
    with pytest.raises(PassbandError, match=message) as caught:
        predicted_targets(model, [(torch.rand(2, 3, 6, 6), torch.zeros(2))])
    assert "\n" not in str(caught.value)


def test_loss_is_the_mean_cross_entropy_and_refuses_strange_targets() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, float(torch.tensor(3.0).log())]])
    found = loss(logits, torch.tensor([0, 1]))
    assert float(found) == pytest.approx((float(torch.tensor(2.0).log()) + float(torch.tensor(4 / 3).log())) / 2)
    with pytest.raises(PassbandError, match="labels lie in 0 to 1 for a model of 2 classes; got 0 to 2"):
        loss(logits, torch.tensor([0, 2]))


def test_predict_builds_no_graph() -> None:
    assert not predict(network(), torch.rand(2, 3, 6, 6)).requires_grad
