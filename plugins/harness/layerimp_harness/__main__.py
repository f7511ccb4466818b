"""`python -m layerimp_harness`: the command `lm_eval` with the model `layerimp`, plugins' tasks, and `--data-dir`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

from layerimp import LayerimpError


def main() -> None:
    """Run lm-eval's command; print a layerimp error as one line, and exit with the error's code."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    from layerimp_harness import pruned  # noqa: F401  (registers the model)
    from layerimp_harness.lm_eval_names import cli_evaluate, tasks
    from layerimp_harness.manager import LocalTaskManager

    try:
        with patch.object(tasks, "TaskManager", partial(LocalTaskManager, data_dir=own.data_dir)):
            cli_evaluate()
    except LayerimpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
