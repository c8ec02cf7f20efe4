"""``python -m passband``."""

from passband.cli import main

if __name__ == "__main__":  # a worker's process imports its parent's main module
    main()
