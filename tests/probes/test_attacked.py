"""Attacks by their options, the same for every probe that attacks."""

from __future__ import annotations

import pytest

from passband.attacks.gradient_sign import FGSM, PGD
from passband.attacks.registry import make
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.probes.attacked import attack_named


def test_an_attack_takes_the_options_that_it_has() -> None:
    # As the probes made them when each had a way of its own.
    for name in ("fgsm", "pgd", "bim", "tpgd", "cw", "gn"):
        given = {option: value for option, value in {"steps": 20, "seed": 1}.items() if hasattr(make(name), option)}
        assert attack_named(name, eps=4 / 255, steps=20, seed=1) == make(name, given).at(4 / 255)
    assert attack_named("pgd") == PGD(steps=20) and attack_named("pgd", preset="spatial-mixing").steps == 2
    assert attack_named("pgd", defaults="torchattacks-3.2") == make("pgd", defaults="torchattacks-3.2")
    assert attack_named("pgd", eps=4 / 255).alpha == pytest.approx(1 / 255)
    assert attack_named("pgd", eps=4 / 255, alpha=2 / 255).alpha == 2 / 255
    band = Band.parse("low 8")
    assert attack_named("fgsm", band=band, random_start=True) == FGSM(band=band)
    with pytest.raises(PassbandError, match="gn keeps to no band"):
        attack_named("gn", band=band)
