"""``python -m passband``."""

from passband.cli import main

main()
