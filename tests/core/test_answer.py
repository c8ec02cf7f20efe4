from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from passband.core.answer import Answer
from passband.core.claims import Claim, judge
from passband.core.errors import PassbandError
from passband.core.results import Axis, Column, Curve, Gallery, Map, Picture, Result, Scalar, Series, Table
from passband.core.scale import Scale


def one_of_each() -> tuple[Result, ...]:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    line = Series(name="a", values=(0.1, None), low=(0.0, None), high=(0.2, None), n=7)
    return (
        Scalar(name="p.scalar", title="s", value=0.5, low=0.4, high=0.6, n=10, unit="fraction", how={"seed": 1}),
        Curve(name="p.curve", title="c", x=Axis(name="r", unit="bins", values=(4, 8.5)), y=Axis(name="y"),
              series=(line,), arrays={"correct": np.eye(3, dtype=bool)}, notes=("said",)),
        Map(name="p.map", title="m", x=Axis(name="x"), y=Axis(name="y"), values=np.eye(5, dtype=np.float32)),
        Table(name="p.table", title="t", columns=(Column(name="a"), Column(name="b", unit="%")),
              rows=(("x", 1.5), (None, 2))),
        Gallery(name="p.gallery", title="g", pictures=(Picture(image=image, caption="c", data={"k": [1]}),)),
    )  # fmt: skip


def test_an_answer_reads_back_as_it_was_written(tmp_path) -> None:
    claim = Claim("c", "sentence", "place", lambda rows: 1.0)
    judged = judge(claim, [{"seed": 0}], Scale.SMOKE)
    Answer({"title": "t", "digest": "d"}, one_of_each(), [judged]).save(tmp_path)
    found = Answer.load(tmp_path)
    assert found.head == {"title": "t", "digest": "d"}
    assert found.claims == (judged,)
    for before, after in zip(one_of_each(), found.results, strict=True):
        np.testing.assert_equal(after.model_dump(), before.model_dump())
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 1


def test_a_name_in_other_letters_keeps_its_files(tmp_path) -> None:
    result = Map(name="σ 1/ε.map", title="m", x=Axis(name="x"), y=Axis(name="y"), values=np.eye(5, dtype=np.float32))
    Answer({}, (result,)).save(tmp_path)
    np.testing.assert_array_equal(Answer.load(tmp_path)["σ 1/ε.map"].values, np.eye(5))


def test_a_changed_or_missing_file_is_not_taken_for_the_answer(tmp_path) -> None:
    Answer({}, one_of_each()).save(tmp_path)
    array = next((tmp_path / "arrays").iterdir())
    array.write_bytes(array.read_bytes()[:-1])
    with pytest.raises(PassbandError, match="its hash differs"):
        Answer.load(tmp_path)
    array.unlink()
    with pytest.raises(PassbandError, match="is missing from the answer"):
        Answer.load(tmp_path)


def test_a_file_outside_the_folder_is_not_read(tmp_path) -> None:
    Answer({}, one_of_each()).save(tmp_path / "a")
    path = tmp_path / "a" / "results.json"
    path.write_text(path.read_text().replace("arrays/p.map.values", "../secret"))
    with pytest.raises(PassbandError, match="outside the answer's folder"):
        Answer.load(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "results": [{"kind": "pie"}]}'])
def test_json_that_is_no_answer(tmp_path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(PassbandError, match="make the answer again"):
        Answer.load(tmp_path)


def test_numbers_that_json_lacks_become_gaps(tmp_path) -> None:
    Answer({"x": float("nan")}, [Scalar(name="s", title="s", value=float("inf"))]).save(tmp_path)
    scalar = Answer.load(tmp_path).results[0]
    assert isinstance(scalar, Scalar) and scalar.value is None


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_full_disk_leaves_the_old_answer_whole(tmp_path, monkeypatch, at) -> None:
    Answer({"title": "old"}, one_of_each()).save(tmp_path)
    left = {"writes": at}

    def full(handle: int) -> None:
        if not left["writes"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left["writes"] -= 1

    monkeypatch.setattr(os, "fsync", full)
    other = [result.model_copy(update={"arrays": {"x": np.arange(9)}}) for result in one_of_each()]
    with pytest.raises(PassbandError, match="disk is full"):
        Answer({"title": "new"}, other).save(tmp_path)
    assert Answer.load(tmp_path).head == {"title": "old"}
    monkeypatch.undo()
    Answer({"title": "new"}, other).save(tmp_path)
    assert len(list((tmp_path / "arrays").iterdir())) == 6  # five of x and the map's; the old ones are gone
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_lines_of_another_length_than_their_axis_are_refused() -> None:
    with pytest.raises(ValueError, match="1 values for 2 points"):
        Curve(
            name="c",
            title="c",
            x=Axis(name="x", values=(1, 2)),
            y=Axis(name="y"),
            series=(Series(name="s", values=(1,)),),
        )
