"""Write the golden scorecards of the sample data anew: run it after a change that is meant to change them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ehrready import demo


def main() -> None:
    """Run the demo and copy its scorecards into tests/golden."""
    golden = Path(__file__).parent.parent / "tests" / "golden"
    golden.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), lambda stage, done, of: None)
        for name in demo.FORMATS:
            shutil.copyfile(Path(folder) / f"scorecard-{name}.json", golden / f"scorecard-{name}.json")


if __name__ == "__main__":
    main()
