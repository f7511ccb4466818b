"""Shows on pages what `layerimp shrink` says of the starter, as it was recorded.

python docs/tools/shrunk.py                    # writes the recorded output into the pages
python docs/tools/shrunk.py --run              # shrinks the starter again first, and records that
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

import pages

from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.shrunk import lines_of

RECORD = pages.ROOT / "benchmarks" / "results" / "shrink" / "starter.json"
SHOWN_ON = (pages.ROOT / "README.md", pages.ROOT / "docs" / "shrink" / "index.md")
TITLE = "Recorded"
OUTPUT = "starter-small"


def recorded() -> str:
    """What the recorded run printed, but for the folder that it ran in."""
    report = ShrinkReport.model_validate_json(RECORD.read_text("utf-8"))
    return "\n".join(lines_of(report.model_copy(update={"output": OUTPUT}))) + "\n"


def with_record(page: str) -> str:
    """Return a page whose block `Recorded` holds the record."""
    (block,) = (found for found in pages.FENCE.finditer(page) if found[2] == TITLE)
    return f"{page[: block.start(3)]}{recorded()}{page[block.end(3) :]}"


def shrink_again() -> None:
    """Shrink the starter as the pages say, and keep the document."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "layerimp", "shrink", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    document = json.loads(done.stdout) | {"output": None}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Bring the pages up to date."""
    if sys.argv[1:] == ["--run"]:
        shrink_again()
    for page in SHOWN_ON:
        page.write_text(with_record(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
