"""The count of the lines that hold code."""

from __future__ import annotations

from pathlib import Path

import code_size

SOURCE = '''"""A module
with two lines."""

# a comment
SIZE = 3  # a comment behind code
"""What it is."""

TEXT = """
no docstring
"""


def area(
    width: int,
) -> int:
    """Return the area."""

    return width * SIZE
'''


def test_docstrings_comments_and_blank_lines_hold_no_code() -> None:
    assert code_size.code_lines(SOURCE) == 8
    assert code_size.code_lines("") == 0


def test_lines_are_summed_by_package(tmp_path: Path) -> None:
    (tmp_path / "inner" / "deeper").mkdir(parents=True)
    for name in ("top.py", "inner/one.py", "inner/deeper/two.py"):
        (tmp_path / name).write_text(SOURCE, encoding="utf-8")
    assert code_size.package_lines(tmp_path) == {"top.py": 8, "inner": 16}
