"""Names that were made to do harm are text on the page, wherever they stand."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from passband.core.answer import Answer
from passband.core.results import Axis, Column, Curve, Gallery, Map, Picture, Result, Scalar, Series, Table
from passband.reports.page import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    "\"><svg onload='alert(4)'>",
    "' onmouseover='alert(5)",
    "javascript:alert(6)",
    "[click](javascript:alert(7))",
    "<!--<script>",
    "]]>{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "a\nb\r\nc\0\x1b[2J",
    "&lt;b&gt;",
    "long" * 500,
)


def results(name: str) -> tuple[Result, ...]:
    """Return every kind of result with the name wherever a name can stand."""
    axis = Axis(name=name, unit=name, values=(name, 2, 3))
    said = {"prediction": name, "confidence": 0.5}
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    bands = {"truth": name, "full": said, "low": [said], "high": [said]}
    common = {"title": name, "notes": (name,), "how": {name: name, "list": [name, {name: name}]}}
    return (
        Scalar(name=f"{name}.scalar", value=0.5, unit=name, **common),
        Curve(
            name=f"{name}/p.curve", x=axis, y=Axis(name=name), series=(Series(name=name, values=(1, 2, 3)),), **common
        ),
        Map(name=f"{name}/p.map", x=axis, y=axis, values=np.eye(3), unit=name, **common),
        Table(name=f"{name}/p.table", columns=(Column(name=name, unit=name),), rows=((name,), (1.5,)), **common),
        Gallery(name=f"{name}/p.g", pictures=(Picture(image=image, caption=name, data={name: name}),), **common),
        Gallery(
            name=f"{name}/p.b", view="bands", data={"radii": [2], "shape": name},
            pictures=(Picture(image=image, caption=name, data=bands),), **common,
        ),
    )  # fmt: skip


class _Elements(HTMLParser):
    """Take a page apart as a browser does."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.heading = ""

    @property
    def scripts(self) -> int:
        return [tag for tag, _ in self.found].count("script")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.heading += data if self.found and self.found[-1][0] == "h1" else ""


def page(folder: Path, names: tuple[str, ...]) -> Path:
    """Save an answer with all names and make its page."""
    found = [result for name in names for result in results(name)]
    head = {"title": names[0], "command": names[0], "notes": list(names), "model": dict(zip(names, names, strict=True))}
    Answer(head, found).save(folder)
    return write(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_wherever_it_stands(tmp_path: Path, name: str) -> None:
    text = page(tmp_path, (name,)).read_text()
    elements = _Elements()
    elements.feed(text)
    assert elements.scripts == 2  # the page's own, and what the slider is given
    attributes = [one for _, found in elements.found for one in found]
    assert not [key for key, _ in attributes if key.startswith("on")]
    links = [value for key, value in attributes if key in ("href", "src")]
    assert links and all(re.match(r"#|data:(image/png|text/csv)", value or "") for value in links)
    assert {tag for tag, _ in elements.found} >= {"figure", "table", "canvas"} and "49" not in elements.heading
    assert not [file for file in tmp_path.rglob("*") if not file.resolve().is_relative_to(tmp_path.resolve())]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian package: chromium)")
def test_a_browser_runs_nothing_of_any_name(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    path, heard, asked = page(tmp_path, NAMES), [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page()
        shown.on("console", lambda message: heard.append(message.text))
        shown.on("pageerror", lambda error: heard.append(str(error)))
        shown.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(path.as_uri())
        shown.wait_for_selector("[data-bands][data-ready]")
        assert shown.locator("h1").inner_text() == NAMES[0]
        browser.close()
    assert heard == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
