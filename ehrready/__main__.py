"""``python -m ehrready``."""

from ehrready.cli import main

if __name__ == "__main__":
    main()
