"""Targets that take text: recipes, ``--set``, options, bands, command lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from fuzz_run import Target
from fuzz_values import TEXTS, damaged, junk, near, texts, words
from hypothesis import strategies as st

from passband.attacks.registry import ATTACKS
from passband.cli import main
from passband.core.band import PRESETS, Band, preset
from passband.core.errors import PassbandError
from passband.core.options import defaults, parse_options
from passband.core.recipe import Recipe
from passband.probes import PROBES

_place = tempfile.TemporaryDirectory(prefix="passband-fuzz-")
FOLDER = Path(_place.name)

FULL = Recipe.of(
    {
        "model": {"name": "separable_resnet", "depth": 1, "width": 4},
        "smooth": {"sigma": 1.0},
        "quantize": {"bits": 4, "progressive": [32, 5]},
        "learn_options": {"both": True},
        "data": {"name": "photos", "size": 16, "part": 8, "view": {"name": "band_limited", "cutoff": 12}},
        "normalize": {"mean": [0.5], "std": [0.2]},
        "attack": {"name": "pgd", "eps": "8/255", "steps": 2},
        "scheme": {"name": "mixed", "how": "cutmix"},
        "early_stop": {"drop": 0.1},
        "clip": 1.0,
        "pieces": 2,
        "ema": {"decay": 0.9, "warmup": 10.0},
    }
).plain()


def recipe_holds(fields: Any) -> None:
    """A recipe that is taken prints, reads back as itself and has a digest."""
    taken = Recipe.of(fields)
    again = Recipe.of(yaml.safe_load(taken.text()))
    assert again == taken and again.digest("d") == taken.digest("d")
    json.dumps(taken.plain(), allow_nan=False)


def recipe_text_holds(text: bytes) -> None:
    path = FOLDER / "recipe.yaml"
    path.write_bytes(text)
    recipe_holds(Recipe.read(path).plain())


def settings_hold(assignments: list[str]) -> None:
    recipe_holds(Recipe().with_settings(assignments).plain())


_names = st.one_of(
    st.sampled_from([".".join([name, *more]) for name in Recipe.model_fields for more in ([], ["name"], ["x", "y"])]),
    words,
)
_right = st.sampled_from(
    [
        "epochs=3",
        "model.depth=2",
        "attack.name=fgsm",
        "attack.eps=8/255",
        "data.view={name: band_limited, cutoff: 4}",
        "augment=[]",
        "ema.decay=0.5",
        "clip=1e-1",
        "data.part=12",
        "scheme={name: mixed, on: clean}",
        "smooth={sigma: 1}",
        "learn=all",
        "normalize=none",
        "quantize={bits: 4}",
        "seed=3",
        "precision=bf16",
        "schedule.warmup=2",
        "optimizer.name=adam",
        "early_stop={}",
        "pieces=2",
    ]
)
_assignments = st.one_of(_right, _right, st.builds("{}={}".format, _names, st.one_of(texts, words)))


def options_hold(case: tuple[Any, str, dict[str, Any]]) -> None:
    kind, name, given = case
    parsed = parse_options(kind[name], given, owner=name)
    if kind is ATTACKS:
        repr(kind[name](**parsed))


def _option_cases() -> st.SearchStrategy[Any]:
    parts = [(kind, name) for kind in (PROBES, ATTACKS) for name in kind]

    def of(part: tuple[Any, str]) -> st.SearchStrategy[Any]:
        kind, name = part
        known = sorted(defaults(kind[name])) or ["x"]
        given = st.dictionaries(st.one_of(st.sampled_from(known), words), st.one_of(junk, texts), max_size=2)
        return st.tuples(st.just(kind), st.just(name), given)

    return st.sampled_from(parts).flatmap(of)


def band_of(case: tuple[str, Any]) -> Band:
    """Make a band in one of the ways that there are."""
    how, given = case
    if how == "text":
        return Band.parse(given)
    if how == "preset":
        return preset(*given)
    parsed: Band = parse_options(_takes_band, {"band": given}, owner="fuzz")["band"]
    if parsed is None:
        raise PassbandError("no band")
    return parsed


def _takes_band(*, band: Band | None = None) -> None: ...


def band_holds(case: tuple[str, Any]) -> None:
    band = band_of(case)
    assert ~~band == band and band.low != band.high and str(band)
    assert Band(**asdict(band)) == band


_lengths = st.one_of(st.floats(), st.integers(-3, 300), st.sampled_from([0.5, 5 / 28, 1e-300, 1e300]))
_sides = st.sampled_from(["low", "high", "Low", ""])
_shapes = st.sampled_from(["", "disc", "square", "cube"])
_mapping = {"cutoff": 8.0, "shape": "square", "unit": "pixel", "edge": "half_open", "side": "low"}
bands = st.one_of(
    st.tuples(st.just("text"), st.one_of(texts, st.builds("{} {} {}".format, _sides, _shapes, _lengths))),
    st.tuples(st.just("preset"), st.tuples(st.sampled_from([*PRESETS, "x"]), _lengths)),
    st.tuples(st.just("mapping"), near(_mapping)),
    st.tuples(st.just("mapping"), st.one_of(junk, st.builds("{} {}".format, _sides, _lengths))),
)


def command_holds(arguments: list[str]) -> None:
    """A command line ends with 0 or 2, and says why in one line where it ends with 2."""
    said, wrong = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
            main(arguments)
        raise AssertionError("the command did not end")
    except SystemExit as ended:
        code, line = ended.code, wrong.getvalue()
    finally:
        os.chdir(before)
    assert code in (0, 2), (code, line)
    if code == 2:
        assert line.startswith("passband: ") and line.count("\n") == 1, line
        assert line[:-1].isprintable(), line
        raise PassbandError(line)


_arguments = st.one_of(
    texts.filter(lambda text: "\0" not in text),
    st.sampled_from(
        [
            "--data",
            "--set",
            "--out",
            "--limit",
            "--seed",
            "--batch",
            "--device",
            "--only",
            "--size",
            "--mean",
            "--std",
            "--scale",
            "--help",
            "--epochs",
            "--model",
            "--learn",
            "--truth",
            "--weights",
            "--eps",
            "--keep",
            "--cost",
            "--runs",
            "--data-dir",
            "--all",
            "--threads",
            "folder:x",
            "images:x",
            "photos",
            "bands,x",
            "bands.radii=4",
            "torchvision:x",
            "file.py:x",
            "net.onnx",
            "recipe.yaml",
            "models",
            "data",
            "attacks",
            "probes",
        ]
    ),
    words,
)
_heads = (
    [],
    ["list"],
    ["report"],
    ["--help"],
    ["probe"],
    ["probe", "x.py:f", "--data"],
    ["harden", "x.py:f", "--data"],
    ["train", "absent.yaml"],
    ["train", "--set", "epochs=0", "--set"],
    ["export", "x.py:f"],
    ["reproduce", "absent/x"],
    ["data"],
    ["probe", "x.py:f", "--data", "photos", "--only"],
    ["probe", "x.py:f", "--data", "photos", "--set"],
)
_commands = st.builds(lambda head, rest: [*head, *rest], st.sampled_from(_heads), st.lists(_arguments, max_size=4))


def _cheap(arguments: list[str]) -> bool:
    """Leave out what would train, measure everything or ask the network for a model."""
    joined = " ".join(arguments)
    if arguments[:1] in (["quickstart"], ["data"]) or "--all" in arguments or "cifar10-jpeg" in joined:
        return "--help" in arguments
    return arguments[:1] != ["train"] or arguments[1:3] == ["--set", "epochs=0"] or arguments[1:2] == ["absent.yaml"]


_yaml = yaml.safe_dump(FULL).encode()
_bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TARGETS = (
    Target("recipes", st.one_of(near(FULL), near(Recipe().plain()), st.dictionaries(texts, junk)), recipe_holds, 12),
    Target(
        "recipe files",
        st.one_of(
            damaged([_yaml, b"epochs: 3\n", b"data: {name: photos, size: 16}\nlearn: all\n"], 2),
            st.sampled_from([*TEXTS, _bomb]).map(_bytes := lambda text: text.encode("utf-8", "replace")),
            texts.map(_bytes),
        ),
        recipe_text_holds,
        6,
    ),
    Target("--set", st.lists(st.one_of(_assignments, texts), min_size=1, max_size=3), settings_hold, 12),
    Target("options of probes and attacks", _option_cases(), options_hold, 12),
    Target("bands", bands, band_holds, 12),
    Target("command lines", _commands.filter(_cheap), command_holds, 2, few=6),
)
