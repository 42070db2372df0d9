"""``python -m ehrready``."""

from ehrready.cli import run

if __name__ == "__main__":
    run()
