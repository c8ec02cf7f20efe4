"""The page on mixing says what its examples print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mixing.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_has_its_output() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 4


@pytest.mark.parametrize("index", [0, 1, 2, pytest.param(3, marks=pytest.mark.data)])
def test_examples_print_what_is_written(
    index: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example, printed = EXAMPLES[index]
    monkeypatch.chdir(ROOT)
    exec(compile(example, f"docs/mixing.md, example {index + 1}", "exec"), {})
    assert capsys.readouterr().out == printed
