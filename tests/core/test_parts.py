from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time

import pytest

from passband.core.band import PRESETS, Band, preset
from passband.core.errors import PassbandError, unknown
from passband.core.options import parse_options
from passband.core.registry import Registry
from passband.core.store import lock


def part(*, radii: tuple[float, ...] = (4, 8), eps: float = 0.1, layer: str | None = None, on: bool = True) -> None: ...


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ({"radii": "4,8.5"}, {"radii": (4, 8.5)}),
        ({"radii": [1, 2]}, {"radii": (1, 2)}),
        ({"radii": "1/2, 3"}, {"radii": (0.5, 3)}),
        ({"eps": "8/255"}, {"eps": 8 / 255}),
        ({"eps": "1e-3"}, {"eps": 1e-3}),
        ({"layer": "null"}, {"layer": None}),
        ({"layer": "stem.0"}, {"layer": "stem.0"}),
        ({"on": "false"}, {"on": False}),
    ],
)
def test_options_are_read_by_their_annotation(given, parsed) -> None:
    assert parse_options(part, given, owner="part") == parsed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"radius": "4"}, "did you mean 'radii'"),
        ({"eps": "much"}, "part: eps cannot be 'much'"),
        ({"eps": "1/0"}, "cannot be"),
    ],
)
def test_options_that_do_not_fit(given, words) -> None:
    with pytest.raises(PassbandError, match=words):
        parse_options(part, given, owner="part")


def test_a_miss_names_the_nearest() -> None:
    registry: Registry[int] = Registry("probe")
    registry.register("bands")(1)
    with pytest.raises(PassbandError, match="unknown probe 'band': did you mean 'bands'"):
        registry["band"]
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("bands")(2)
    assert "available: x, y" in str(unknown("thing", "zzz", ["y", "x"]))


def test_bands_say_what_they_keep() -> None:
    assert str(preset("high-frequency-code", 8)) == "low disc r<8"
    assert str(preset("adversarial-focus", 28)) == "low square -14<=k<14"
    assert ~~Band.disc(3) == Band.disc(3) and (~Band.disc(3)).low == Band.disc(3)
    assert len({preset(name, 8) for name in PRESETS}) == len(PRESETS)
    for bad in (lambda: Band.disc(-1), lambda: Band(3, edge="half_open"), lambda: preset("nope", 3)):
        with pytest.raises(PassbandError):
            bad()


def hold(folder, ready) -> None:
    with lock(folder):
        ready.set()
        time.sleep(60)


def test_a_folder_belongs_to_one_process_and_death_gives_it_free(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready))
    other.start()
    assert ready.wait(10)
    with pytest.raises(PassbandError, match="another process works in"), lock(tmp_path):
        pass
    other.kill()
    other.join()
    with lock(tmp_path):
        pass


def test_help_and_import_load_no_torch() -> None:
    code = (
        "import sys, passband, passband.cli.app, passband.reports.page, passband.core.recipe, passband.core.answer\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
