"""The page says what the JSON says, asks nobody for anything, and keeps every string a string."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_demo as demo
from PIL import Image

from passband.core.answer import Answer
from passband.core.errors import PassbandError
from passband.core.results import Axis, Curve, Map, Scalar, Series, Table
from passband.reports.figures import csv_rows
from passband.reports.heatmap import RISING, colors, reduced
from passband.reports.page import render, write
from passband.reports.svg import Span, across, upward


class _Reader(HTMLParser):
    """Collect what a browser would see: elements with their attributes, and the text of each figure."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.texts.append(data)

    def csv(self, name: str) -> list[list[str]]:
        uri = next(attrs["href"] for tag, attrs in self.tags if tag == "a" and attrs.get("download") == f"{name}.csv")
        text = base64.b64decode((uri or "").partition("base64,")[2]).decode()
        return list(csv.reader(io.StringIO(text)))


@pytest.fixture(scope="module")
def page() -> str:
    return render(demo.answer())


@pytest.fixture(scope="module")
def read(page: str) -> _Reader:
    return _Reader(page)


def test_five_kinds_and_command(read: _Reader) -> None:
    figures = {attrs["data-name"]: attrs["class"] for tag, attrs in read.tags if tag == "figure"}
    assert figures == {result.name: result.kind for result in demo.answer().results}
    assert read.texts.count(demo.COMMAND) == 1 + len(figures)
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {(attrs.get("href") or "")[1:] for tag, attrs in read.tags if tag == "a"}
    assert {place for place in ids if str(place).startswith("section-")} <= targets


def test_nothing_from_outside(page: str, read: _Reader) -> None:
    for tag, attrs in read.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), (tag, attrs)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket", page)
    assert len(page) < 1_000_000


def test_policy_allows_this_script_alone(read: _Reader) -> None:
    policy = next(attrs["content"] for tag, attrs in read.tags if tag == "meta" and "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(read.scripts[-1].encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_hostile_names_stay_text(read: _Reader) -> None:
    assert [attrs for tag, attrs in read.tags if tag == "script"] == [{"type": "application/json"}, {}]
    given = json.loads(read.scripts[0])
    assert given["pictures"][1]["truth"] == demo.HOSTILE
    assert not [tag for tag, _ in read.tags if tag == "b"] and "a <b>bold</b> name" in read.texts
    evil = '"><img src=x onerror=alert(1)></title><svg onload=alert(1)>'
    line = Series(name=evil, values=(0.5, 0.25))
    along, up = Axis(name=evil, values=(evil, "b")), Axis(name=evil, unit=evil)
    curve = Curve(name=evil, title=evil, x=along, y=up, series=(line, line))
    answer = Answer({"title": evil, "command": evil, evil: {evil: evil}}, [curve], demo.claims())
    tags = _Reader(render(answer)).tags
    assert not [tag for tag, attrs in tags if tag == "img" or any(name.startswith("on") for name in attrs)]


def test_numbers_equal_the_json(tmp_path: Path) -> None:
    demo.answer().save(tmp_path)
    read = _Reader(write(tmp_path).read_text())
    by_name = {item["name"]: item for item in json.loads((tmp_path / "results.json").read_text())["results"]}
    said = by_name["bands.accuracy"]
    head, *rows = read.csv("bands.accuracy")
    assert head == ["series", "radius (pixel)", "accuracy (fraction)", "low", "high", "n"]
    for line, at in ((line, at) for line in said["series"] for at in range(len(demo.RADII))):
        expected = (line["values"][at], line["low"][at], line["high"][at], line["n"])
        name, radius, *numbers = rows.pop(0)
        assert (name, int(radius)) == (line["name"], demo.RADII[at])
        assert tuple(float(number) if number else None for number in numbers) == expected
    assert rows == []
    assert {"91.3%", "95% interval 89.4 to 92.9, n = 1,000", "60.2 [57.1 to 63.5]"} <= set(read.texts)
    assert "low-pass · radius 8 pixel: 60.2% (95%: 57.1 to 63.5), n = 1,000" in read.texts
    table = read.csv("robustness.table")[1:]
    assert [float(row[1]) for row in table if row[1]] == [0.9134, 0.8977, 0.1]
    assert {"91.3", "−1.6", "272,474", "–"} <= set(read.texts)
    assert json.loads(read.scripts[0])["pictures"][0] == by_name["bands.pictures"]["pictures"][0]["data"]


def test_csv_of_map_and_gallery() -> None:
    result = demo.frequency_map()
    head, *rows = csv_rows(result)
    assert list(head[1:]) == list(result.x.values)
    found = [[float(text) if text else np.nan for text in row[1:]] for row in rows]
    np.testing.assert_array_equal(found, result.values)
    said = csv_rows(demo.gallery())
    assert len(said) == 1 + 4 * (1 + 2 * len(demo.RADII))
    assert tuple(said[2]) == ("astronaut", "astronaut", "low", 2, "grass", 0.25 + 2 / 64)


def test_gallery_without_measurements() -> None:
    gallery = demo.gallery()
    bare = gallery.model_copy(
        update={"pictures": tuple(item.model_copy(update={"data": {}}) for item in gallery.pictures)}
    )
    assert _Reader(render(Answer({}, [bare]))).csv("bands.pictures")[1] == [
        "astronaut",
        "",
        "full",
        "",
        "",
        "",
    ]


def test_pictures_are_kept_exactly(read: _Reader) -> None:
    uris = [attrs["src"] or "" for tag, attrs in read.tags if tag == "img"]
    data = base64.b64decode(uris[0].partition("base64,")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), demo.photograph("astronaut", 32, 32))


def test_gaps_and_axes() -> None:
    read = _Reader(render(Answer({}, [demo.curve()])))
    drawn = [attrs["d"] for tag, attrs in read.tags if tag == "path" and attrs.get("class") == "line"]
    # Both swatches; the first line's three points (then a gap, then one point alone); the second line.
    assert [str(path).count("L") for path in drawn] == [0, 0, 2, 4]
    span, points = across(Axis(name="x", values=(1, 10, 100)))
    assert span.log and [span.place(point) for point in points] == pytest.approx([0, 0.5, 1])
    assert not across(Axis(name="x", values=tuple(range(1, 101))))[0].log
    assert upward([20.0, 60.0], "%") == Span(0, 100)
    ticks = upward([-0.02, 0.03], "").ticks()
    assert [tick.text for tick in ticks] == ["−0.02", "−0.01", "0.00", "0.01", "0.02", "0.03"]
    assert colors(np.array([0.0, 1.0]), RISING).tolist() == [[43, 10, 69], [247, 232, 59]]


def test_large_maps_are_block_means() -> None:
    values = np.arange(300.0)[:, None] * np.ones(256)
    values[0, 0] = np.nan
    along = tuple((index - 128) / 256 for index in range(256))
    large = Map(name="m.m", title="m", x=Axis(name="u", values=along), y=Axis(name="v"), values=values)
    small = reduced(large)
    assert small.values.shape == (100, 86) and small.values[:, 1].tolist() == [1 + 3 * row for row in range(100)]
    assert small.values[0, 0] == 9 / 8
    assert small.x.values[0] == pytest.approx(along[1]) and small.x.values[-1] == along[-1]
    page = render(Answer({}, [large]))
    assert len(page) < 300_000 and "Shown as means of 3×3 cells" in page


def test_nothing_measured_renders() -> None:
    empty = Axis(name="x", values=(1, 2))
    results = [
        Scalar(name="a.none", title="none", value=None),
        Curve(
            name="a.curve",
            title="none",
            x=empty,
            y=Axis(name="y"),
            series=(Series(name="s", values=(None, None)),),
        ),
        Curve(name="a.empty", title="none", x=Axis(name="x"), y=Axis(name="y"), series=()),
        Table(name="a.table", title="none", columns=(), rows=()),
    ]
    assert "Nothing was measured here." in "".join(_Reader(render(Answer({}, results))).texts)


def test_claims_summary_and_overlay() -> None:
    answer = demo.experiment()
    read = _Reader(render(answer))
    verdicts = [attrs["class"] for tag, attrs in read.tags if tag == "strong" and "verdict" in str(attrs["class"])]
    assert len(verdicts) == len(answer.claims)
    assert {"holds", "fails", "undecided", "not judged at this scale", "not measured"} <= set(read.texts)
    assert {"−3.7 points", "95%: −5.1 to −2.3"} <= {text.strip() for text in read.texts}
    names = [attrs["data-name"] for tag, attrs in read.tags if tag == "figure"]
    sides = [f"{probe}.accuracy.{side}" for probe in ("bands", "robustness") for side in ("low-pass", "high-pass")]
    assert names == ["rows", *sides, *(result.name for result in answer.results[1:])]
    rows = read.csv("robustness.accuracy.low-pass")[1:]
    assert [row[0] for row in rows] == [case for case in ("everything", "channels", "spatial") for _ in demo.RADII]
    assert float(rows[0][2]) == 0.11 + 0.04


def test_made_again_without_torch_and_alike(tmp_path: Path) -> None:
    demo.answer().save(tmp_path)
    first = write(tmp_path).read_bytes()
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from passband.reports.page import write\n"
        "write(Path(sys.argv[1]))"
    )
    (tmp_path / "report.html").unlink()
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "report.html").read_bytes() == first


def test_no_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PassbandError, match=r"no results\.json"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []
