"""The page in a real browser: the slider filters as numpy does, and nothing is asked of the network."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_demo as demo
from PIL import Image

from passband.core.answer import Answer
from passband.reports.page import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian package: chromium)")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
ROOT = "[data-bands]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answer")
    demo.answer().save(folder)
    return write(folder)


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Any]:
    """Open the demonstration page; fail on any other request, and on anything said on the console."""
    page = browser.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(f"{ROOT}[data-ready]")
    yield page
    page.close()
    assert heard == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


def _pixels(page: Any, part: str) -> np.ndarray:
    uri = page.evaluate("(part) => document.querySelector(`[data-part=${part}] canvas`).toDataURL()", part)
    data = base64.b64decode(uri.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)


def _slide(page: Any, value: float) -> None:
    page.evaluate(
        """(value) => new Promise((done) => {
          const range = document.querySelector("[data-bands] input");
          range.value = value;
          range.dispatchEvent(new Event("input"));
          requestAnimationFrame(() => requestAnimationFrame(done));
        })""",
        value,
    )


def _said(page: Any, part: str) -> list[str]:
    return page.locator(f"[data-part={part}] .said p").all_inner_texts()


def _choose(page: Any, index: int) -> None:
    page.locator(".choices button").nth(index).click()
    page.wait_for_selector(f'{ROOT}[data-ready="{index}"]')


def _low(image: np.ndarray, radius: float) -> np.ndarray:
    """Low-pass by numpy: the same definition, another transform."""
    height, width = image.shape[:2]
    v, u = np.arange(height) - height // 2, np.arange(width) - width // 2
    keep = np.fft.ifftshift(np.hypot(u[None, :], v[:, None]) <= radius)
    return np.fft.ifft2(np.fft.fft2(image, axes=(0, 1)) * keep[..., None], axes=(0, 1)).real


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_filters_as_numpy(opened: Any, index: int) -> None:
    title, height, width = [
        ("astronaut", 32, 32),
        ("coffee", 28, 30),
        ("camera", 33, 32),
        ("chelsea", 224, 224),
    ][index]
    image = demo.photograph(title, height, width)
    _choose(opened, index)
    _slide(opened, 5)
    np.testing.assert_array_equal(_pixels(opened, "image"), image)
    low = _low(image.astype(float), 5)
    # Each pixel is rounded once; where the exact value lies at a half, either side is right.
    assert np.abs(_pixels(opened, "low") - np.clip(low, 0, 255)).max() <= 0.5 + 1e-6
    assert np.abs(_pixels(opened, "high") - np.clip(128.0 + image - low, 0, 255)).max() <= 0.5 + 1e-6


def test_slider_moves_pixels_and_words(opened: Any) -> None:
    slider = opened.locator(f"{ROOT} input")
    assert (slider.get_attribute("max"), slider.input_value()) == ("23", "8")
    before = _pixels(opened, "low")
    assert _said(opened, "low") == ["astronaut, 37.5%", "measured at r = 8"]
    slider.focus()
    for _ in range(3):
        opened.keyboard.press("ArrowRight")
    # Waiting by a locator runs no string as code, which the page's own policy would refuse.
    opened.locator(f"{ROOT} output", has_text="r ≤ 11 pixels").wait_for()
    assert np.abs(_pixels(opened, "low") - before).max() > 10
    assert _said(opened, "low") == ["astronaut, 43.8%", "measured at r = 12, the nearest"]
    opened.get_by_role("button", name="2", exact=True).click()
    assert _said(opened, "low") == ["grass, 28.1%", "measured at r = 2"]
    assert _said(opened, "high") == ["astronaut, 28.1%", "measured at r = 2"]
    assert _said(opened, "image") == ["truth: astronaut", "model: astronaut, 97.0%"]
    assert opened.locator("[data-part=low] .wrong").count() == 1


def test_ends_of_the_slider(opened: Any) -> None:
    image = demo.photograph("astronaut", 32, 32)
    _slide(opened, 23)
    np.testing.assert_array_equal(_pixels(opened, "low"), image)
    assert set(_pixels(opened, "high").ravel().tolist()) == {128}
    _slide(opened, 0)
    assert np.abs(_pixels(opened, "low") - image.mean(axis=(0, 1))).max() <= 0.5 + 1e-6


def test_hostile_class_stays_text(opened: Any) -> None:
    _choose(opened, 1)
    assert _said(opened, "image") == [f"truth: {demo.HOSTILE}", f"model: {demo.HOSTILE}, 97.0%"]


@pytest.mark.parametrize(("shape", "edge"), [("square", "exclusive"), ("square", "half_open"), ("disc", "exclusive")])
def test_other_bands(browser: Any, tmp_path: Path, shape: str, edge: str) -> None:
    Answer({}, [demo.gallery(shape=shape, edge=edge)]).save(tmp_path)
    page = browser.new_page()
    page.goto(write(tmp_path).as_uri())
    page.wait_for_selector(f"{ROOT}[data-ready]")
    found = page.evaluate(
        "(band) => Array.from(fourier.mask(6, 5, band))",
        {"shape": shape, "edge": edge, "unit": "pixel", "cutoff": 2},
    )
    page.close()
    v, u = np.meshgrid(np.arange(6) - 3, np.arange(5) - 2, indexing="ij")
    if edge == "half_open":
        inside = (u >= -2) & (u < 2) & (v >= -2) & (v < 2)
    elif shape == "square":
        inside = np.maximum(abs(u), abs(v)) < 2
    else:
        inside = np.hypot(u, v) < 2
    # A filter's real part is what the filter averaged with its mirror image gives.
    kernel = np.fft.ifft2(np.fft.ifftshift(inside)).real
    np.testing.assert_allclose(np.fft.fft2(kernel).real.ravel(), found, atol=1e-12)
