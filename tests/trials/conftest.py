"""What the trials share: the harness among the benchmarks, and the process from which commands are forked."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # The benchmarks are no part of the package.


@pytest.fixture(scope="session")
def forked():
    """A context whose processes have torch and the photographs in memory from the start."""
    from benchmarks.driven import server

    return server()
