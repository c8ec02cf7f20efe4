"""A checkpoint that was damaged, or made to do harm, is refused by name; no code in it is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from passband.core.errors import PassbandError
from passband.train.checkpoint import read
from passband.train.run import open_run


class Code:
    """Leave a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "checkpoint.pt"
    for zipped in (True, False):
        torch.save({"digest": "d", "memory": Code(mark)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(PassbandError, match=r"checkpoint\.pt is damaged"):
            read(path)
    path.write_bytes(pickle.dumps(Code(mark)))
    with pytest.raises(PassbandError, match=r"checkpoint\.pt is damaged"):
        read(path)
    assert not mark.exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x02.", b"\x80\x02K\x01t.", b"q", b"\x80\x02}b.", b"PK\x03\x04"])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(data)
    with pytest.raises(PassbandError, match=r"checkpoint\.pt is damaged"):
        read(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 3000])
def test_metrics_that_are_damaged_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text("epochs: 1\n")
    (tmp_path / "DONE").write_text("")
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(PassbandError, match=r"metrics\.json"):
        open_run(tmp_path)
