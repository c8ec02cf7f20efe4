"""Grids and their levels by hand, and an activation quantizer's answers and gradients."""

import pytest
import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.models.fold import fold
from passband.models.quantizers import FLOAT, ActivationQuantizer, QuantizedInput, levels, rounded

# Worked by hand: cut to the grid's range, times the number of steps, rounded half to even, divided again.
SIGNED = {
    2: ([-0.9, -0.5, 0.4, 0.5, 0.51, 1.0], [-1, 0, 0, 0, 1, 1]),  # one step: ternary
    3: ([-0.9, -0.5, 0.16, 0.17, 0.84], [-1, -2 / 3, 0, 1 / 3, 1]),  # three: -1.5 goes to the even -2
    4: ([-0.5, 0.07, 0.08, 0.3, 0.95], [-4 / 7, 0, 1 / 7, 2 / 7, 1]),  # seven: -3.5 goes to the even -4
    8: ([0.25, -0.5, 0.003], [32 / 127, -64 / 127, 0]),  # 127: 31.75, -63.5 to the even -64, 0.381
}
UNSIGNED = {
    2: ([0.1, 0.2, 0.5, 0.9], [0, 1 / 3, 2 / 3, 1]),  # three: 1.5 goes to the even 2
    3: ([0.07, 0.08, 0.5], [0, 1 / 7, 4 / 7]),  # seven: 3.5 goes to the even 4
    4: ([0.03, 0.04, 0.5], [0, 1 / 15, 8 / 15]),  # fifteen: 7.5 goes to the even 8
    8: ([0.5, 0.001, 0.003], [128 / 255, 0, 1 / 255]),
}
POWERS = {
    2: ([-0.6, 0.5, 0.51], [-1, 0, 1]),
    3: ([-0.9, 0.74, 0.3, 0.1], [-1, 0.5, 0.25, 0]),  # 0, 1/4, 1/2, 1
    4: ([0.012, 1 / 64, 0.03, 0.2], [1 / 64, 1 / 64, 1 / 32, 0.25]),  # down to 2^-6
}


@pytest.mark.parametrize(
    ("signed", "grid", "bits", "values", "expected"),
    [(True, "uniform", bits, *pair) for bits, pair in SIGNED.items()]
    + [(False, "uniform", bits, *pair) for bits, pair in UNSIGNED.items()]
    + [(True, "power-of-two", bits, *pair) for bits, pair in POWERS.items()],
)
def test_levels_by_hand(signed: bool, grid, bits: int, values: list[float], expected: list[float]) -> None:
    found = rounded(torch.tensor(values), bits, signed, grid)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("grid", ["uniform", "power-of-two"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_a_quantizer_is_idempotent_and_has_its_levels(bits: int, signed: bool, grid) -> None:
    quantizer = ActivationQuantizer(bits, signed, clip=1.5, grid=grid)
    low = -4.0 if signed else 0.0
    once = quantizer(torch.linspace(low, 4, 40001))
    assert torch.equal(quantizer(once), once)
    count = 2**bits - 1 if signed else 2**bits
    reachable = count if grid == "uniform" or bits < 5 else len(once.unique())
    assert len(once.unique()) == reachable <= count
    assert float(once.detach().max()) == 1.5


@pytest.mark.parametrize("bits", [2, 4])
def test_levels_count_as_their_bits_say(bits: int) -> None:
    assert len(levels(bits, True)) == 2 ** (bits - 1)
    assert len(levels(bits, False)) == 2**bits
    assert levels(bits, False, "power-of-two")[1] == 2.0 ** -(2**bits - 2)


def test_gradients_by_hand_where_inputs_are_not_negative() -> None:
    quantizer = ActivationQuantizer(2, signed=False, clip=3.0)
    values = torch.tensor([0.4, 1.6, 2.0, 5.0, -1.0], requires_grad=True)
    answer = quantizer(values)
    assert answer.tolist() == pytest.approx([0, 2, 2, 3, -1])
    answer.backward(torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0]))
    assert values.grad is not None and values.grad.tolist() == [1, 1, 1, 0, 2]
    # level - x/clip inside, 1 outside: 0 - .4/3, 2/3 - 1.6/3, 2/3 - 2/3, 1, and -1/3 + 1/3.
    assert float(quantizer.clip.grad) == pytest.approx(-0.4 / 3 + 0.4 / 3 + 0 + 1)


def test_gradients_by_hand_where_inputs_have_a_sign() -> None:
    quantizer = ActivationQuantizer(3, signed=True, clip=1.0)
    values = torch.tensor([-1.4, -0.5, 0.1, 1.2], requires_grad=True)
    answer = quantizer(values)
    assert answer.tolist() == pytest.approx([-1, -2 / 3, 0, 1])
    answer.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0, 1, 1, 0]
    assert float(quantizer.clip.grad) == pytest.approx(-1 + (-2 / 3 + 0.5) + (0 - 0.1) + 1)


def test_32_bits_pass_and_bits_are_part_of_the_state() -> None:
    quantizer = ActivationQuantizer(FLOAT, signed=True, clip=1.0)
    values = torch.randn(5)
    assert quantizer(values) is values
    quantizer.load_state_dict(ActivationQuantizer(4, signed=True, clip=1.0).state_dict())
    assert quantizer.bits == 4 and len(quantizer(torch.linspace(-1, 1, 999)).unique()) == 15


def test_batch_norms_fold_behind_a_quantizer() -> None:
    torch.manual_seed(0)
    place = QuantizedInput(ActivationQuantizer(4, signed=True, clip=1.0), nn.Conv2d(3, 4, 3))
    model = nn.Sequential(place, nn.BatchNorm2d(4)).eval()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 8, 8)
    quick, folded = fold(model)
    assert folded.folded == 1
    torch.testing.assert_close(quick(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, True, 1.0), "2 to 16 bits"),
        ((17, True, 1.0), "2 to 16 bits"),
        ((8, True, 1.0, "power-of-two"), "2 to 7 bits"),
        ((4, True, 0.0), "above 0"),
    ],
)
def test_what_is_no_quantizer_is_refused(arguments, words: str) -> None:
    with pytest.raises(PassbandError, match=words):
        ActivationQuantizer(*arguments)
