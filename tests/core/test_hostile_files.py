"""Recipes and answers that somebody made to do harm: read as data, within bounds, inside their folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from passband.core.answer import Answer
from passband.core.errors import PassbandError, one_line, shortened
from passband.core.plain import DEEPEST, LONGEST, check_plain, read_json, read_yaml
from passband.core.recipe import Recipe
from passband.core.results import Axis, Gallery, Map, Picture


class Code:
    """Leave a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.system ['touch MARK']", "not YAML"),
        ("model: !!python/object/new:subprocess.Popen [[touch, MARK]]", "not YAML"),
        ("model: !!python/name:os.system", "not YAML"),
        (BOMB, "more than 100,000 values"),
        ("model: &a {name: x, more: [*a]}", "levels"),
        ("smooth: " + "[" * 3000 + "]" * 3000, "recursion"),
        ("smooth: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "levels"),
        ("seed: " + "9" * 5000, "not YAML"),
        ("seed: 0x" + "f" * 5000, "more than 64 bits"),
        ("clip: .nan", "number nan"),
        ("clip: .inf", "number inf"),
        ("smooth: {sigma: 2001-99-99}", "not YAML"),
        ("smooth: {sigma: 2001-01-01}", "kind date"),
        ("smooth: {sigma: !!binary aGk=}", "kind bytes"),
        ("model: {name: x, ? [1, 2] : y}", "unhashable key"),
        ("clip: !!float ''", "not YAML"),
        ("clip: !!bool maybe", "not YAML"),
        ("x" * (LONGEST + 1), "letters"),
    ],
)
def test_a_hostile_recipe_is_refused_at_once_in_a_line(tmp_path, text: str, said: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "recipe.yaml"
    path.write_text(text.replace("MARK", str(mark)))
    began = time.process_time()
    with pytest.raises(PassbandError, match=said) as caught:
        Recipe.read(path)
    assert str(path) in str(caught.value) or "a recipe is" in str(caught.value)
    assert not mark.exists() and time.process_time() - began < 10
    assert len(one_line(str(caught.value))) < 1100


def test_a_hostile_setting_is_refused_in_a_line(tmp_path) -> None:
    for text in ("!!python/object/apply:os.system ['true']", "9" * 5000, "[" * 3000, "&a [*a]", ".nan"):
        with pytest.raises(PassbandError):
            Recipe().with_settings([f"model.depth={text}"])


def test_a_number_too_large_for_a_float_stays_text_and_the_recipe_writable() -> None:
    recipe = Recipe().with_settings(["model.width=1e999"])
    assert recipe.model.arguments["width"] == "1e999"
    json.dumps(recipe.plain(), allow_nan=False)


def test_the_key_on_is_a_name_and_no_truth_value() -> None:
    assert read_yaml("{on: clean, yes: 1, 3: off}") == {"on": "clean", "yes": 1, "3": False}
    recipe = Recipe().with_settings(["scheme={name: mixed, how: cutmix, on: clean}"])
    assert recipe.scheme is not None and recipe.scheme.arguments == {"how": "cutmix", "on": "clean"}


def test_a_merge_key_still_merges() -> None:
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}")["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "text",
    ["[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", "[1e308]", "9" * 5000, "9" * 25, "[" * 5000, "[" * 40 + "]" * 40,
     '{"a": "\\ud800"}', b'{"a": "\xff"}', "{", ""],
)  # fmt: skip
def test_json_that_is_no_json_or_too_much(text: str | bytes) -> None:
    with pytest.raises(ValueError) as caught:
        read_json(text)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_json_within_bounds_is_read() -> None:
    assert read_json('{"a": [1, 0.5, null, "\\ud83d\\ude00 é"]}') == {"a": [1, 0.5, None, "😀 é"]}
    deep: Any = 1
    for _ in range(DEEPEST):
        deep = [deep]
    assert read_json(json.dumps(deep)) == deep
    check_plain(deep)


def test_an_error_is_one_short_line_that_no_terminal_obeys() -> None:
    assert one_line("a\n\x1b[2J\u202e") == "a \\x1b[2J\\u202e"
    assert len(one_line("x" * 10_000)) < 1100
    assert len(shortened([["x" * 9999] * 9999] * 9999)) < 9999


def planted(folder: Path, data: bytes, name: str, shape: list[int]) -> Path:
    """Make an answer whose map or picture is the given file, with the right hash."""
    axis = Axis(name="x")
    results: Any = [Map(name="m", title="m", x=axis, y=axis, values=np.eye(2))]
    if name.endswith(".png"):
        results = [Gallery(name="m", title="m", pictures=(Picture(image=np.zeros((2, 2), np.uint8)),))]
    Answer({}, results).save(folder)
    (folder / name).write_bytes(data)
    document = json.loads((folder / "results.json").read_text())
    put = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "shape": shape, "dtype": "float64"}
    if name.endswith(".png"):
        document["results"][0]["pictures"][0]["image"] = put
    else:
        document["results"][0]["values"] = put
    (folder / "results.json").write_text(json.dumps(document))
    return folder


def _npz(array: np.ndarray, name: str = "values") -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **{name: array})
    return buffer.getvalue()


def test_an_array_with_code_in_it_is_refused_and_not_run(tmp_path) -> None:
    mark = tmp_path / "mark"
    code = np.array([[Code(mark)]], dtype=object)
    plain = io.BytesIO()
    np.save(plain, code, allow_pickle=True)
    for at, data in enumerate((_npz(code), plain.getvalue())):
        with pytest.raises(PassbandError, match=r"odd.npz cannot be read"):
            Answer.load(planted(tmp_path / str(at), data, "odd.npz", [1, 1]))
    assert not mark.exists()


@pytest.mark.parametrize(
    "array",
    [np.zeros(4), np.zeros((2, 2, 2)), np.zeros((0, 3)), np.array([["a"]]), np.array([[1j]]), np.zeros(())],
)
def test_an_array_that_is_no_map_is_refused(tmp_path, array: np.ndarray) -> None:
    with pytest.raises(PassbandError, match="a map holds numbers"):
        Answer.load(planted(tmp_path, _npz(array), "odd.npz", list(array.shape)))


def test_an_array_that_unpacks_to_very_much_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("passband.core.answer.LARGEST", 10_000)
    with pytest.raises(PassbandError, match="unpacks to 80,128 bytes"):
        Answer.load(planted(tmp_path, _npz(np.zeros((100, 100))), "odd.npz", [100, 100]))


def test_a_picture_of_very_many_pixels_is_refused(tmp_path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(PassbandError, match="bomb"):
        Answer.load(planted(tmp_path, buffer.getvalue(), "odd.png", [1, 1]))


@pytest.mark.parametrize("name", ["../secret.npz", "/etc/passwd", "link.npz", "pipe.npz", ".", "a\0b", "x" * 999])
def test_a_file_outside_the_folder_or_none_is_not_read(tmp_path, name: str) -> None:
    folder = planted(tmp_path / "answer", _npz(np.eye(2)), "odd.npz", [2, 2])
    (tmp_path / "secret.npz").write_bytes(_npz(np.eye(2)))
    (folder / "link.npz").symlink_to(tmp_path / "secret.npz")
    os.mkfifo(folder / "pipe.npz")
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace('"odd.npz"', json.dumps(name)))
    with pytest.raises(PassbandError, match="is not read"):
        Answer.load(folder)


def test_a_reference_among_plain_facts_opens_no_file(tmp_path) -> None:
    document = json.loads((planted(tmp_path, _npz(np.eye(2)), "odd.npz", [2, 2]) / "results.json").read_text())
    document["results"][0]["how"] = {"seed": {"file": "/etc/passwd", "sha256": "", "shape": [], "dtype": ""}}
    (tmp_path / "results.json").write_text(json.dumps(document))
    assert Answer.load(tmp_path)["m"].how["seed"]["file"] == "/etc/passwd"


def test_a_name_of_bytes_that_are_no_letters_is_kept_as_an_escape(tmp_path) -> None:
    Answer({"title": os.fsdecode(b"caf\xe9")}, ()).save(tmp_path)
    assert Answer.load(tmp_path).head == {"title": "caf\\udce9"}
