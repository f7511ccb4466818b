"""Counts the lines of `layerimp/` that hold code: no docstrings, comments or blank lines.

python docs/tools/code_size.py
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

CORE = Path(__file__).parents[2] / "layerimp"
_NO_CODE = {
    tokenize.ENCODING,
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """How many lines of a Python file hold code. A string that is a statement of its own is a docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for token in tokens if token.type not in _NO_CODE for n in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def package_lines(core: Path) -> dict[str, int]:
    """The lines that hold code in each package of a folder, and in each file beside the packages."""
    lines: Counter[str] = Counter()
    for file in sorted(core.rglob("*.py")):
        lines[file.relative_to(core).parts[0]] += code_lines(file.read_text(encoding="utf-8"))
    return dict(lines)


def main() -> None:
    """Print the lines of each package and of all, and the number of files in `report/` outside `report/results`."""
    lines = package_lines(CORE)
    for name, count in sorted(lines.items(), key=lambda item: -item[1]):
        print(f"{count:6,}  {name}")
    print(f"{sum(lines.values()):6,}  layerimp in all")
    report = CORE / "report"
    files = [file for file in report.rglob("*.py") if report / "results" not in file.parents]
    print(f"{len(files):6,}  files in report/ outside results/")


if __name__ == "__main__":
    main()
