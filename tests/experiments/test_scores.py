"""Scores of samples of which some have no number."""

from __future__ import annotations

import numpy as np
import pytest

from passband.core.errors import PassbandError
from passband.experiments.scores import finite


def test_the_mean_is_that_of_what_has_a_number_and_without_any_there_is_none() -> None:
    scores = finite(np.array([1.0, np.nan, 3.0, np.inf]))
    assert len(scores) == 4 and scores.mean() == 2 and scores[1] == scores[3] == 2
    with pytest.raises(PassbandError, match="none of 2 samples"):
        finite(np.array([np.nan, np.inf]))
