"""All targets."""

from __future__ import annotations

import fuzz_answers
import fuzz_files
import fuzz_images
import fuzz_text

TARGETS = (*fuzz_text.TARGETS, *fuzz_images.TARGETS, *fuzz_answers.TARGETS, *fuzz_files.TARGETS)
