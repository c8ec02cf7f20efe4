"""The pages say nothing that was not run: its Python runs, its numbers are those of the stored JSON."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from passband.core.answer import Answer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PASSBAND_RUNS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


def test_there_are_four_examples() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("index", range(4))
def test_examples_run(place, index) -> None:
    exec(compile(BLOCKS[index], f"README.md, example {index + 1}", "exec"), {})


def script(name: str) -> ModuleType:
    """Import a script of the docs folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numbers_are_those_of_the_json() -> None:
    tables = script("tables")
    for page in tables.PAGES:
        assert tables.written(page) == (ROOT / page).read_text(), "run `python docs/tables.py`"


def test_pages_of_experiments_are_those_of_the_kept_answers() -> None:
    answers = script("answers")
    files = answers.written()
    assert files
    for path, text in files.items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)}: run `python docs/answers.py`"


def test_a_claim_that_does_not_hold_has_a_remark() -> None:
    answers = script("answers")
    for name in answers.kept():
        paper, _, experiment = name.partition("/")
        said = answers.remarks(paper).get(experiment, {})
        claims = Answer.load(answers.RESULTS / name).claims
        open_ones = {claim.name for claim in claims if claim.verdict in ("fails", "undecided")}
        assert not open_ones - set(said), f"{name}: say in remarks.json what was found"
        assert set(said) <= {claim.name for claim in claims}, f"{name}: remarks.json speaks of other claims"


def test_what_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("page", ["docs/quantization.md", "docs/layers.md", "docs/detection.md"])
def test_the_examples_of_the_pages_run(page: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert examples
    names: dict[str, object] = {}  # an example may go on from the one before
    for example in examples:
        exec(compile(example, page, "exec"), names)


@pytest.mark.data
def test_the_worked_example_prints_what_is_written(monkeypatch, capsys) -> None:
    page = (ROOT / "docs" / "attacks.md").read_text()
    example, printed = re.search(r"```python\n(import passband\n.*?)```\n\n```text\n(.*?)```", page, re.DOTALL).groups()
    monkeypatch.chdir(ROOT)
    exec(compile(example, "docs/attacks.md", "exec"), {})
    assert capsys.readouterr().out == printed
