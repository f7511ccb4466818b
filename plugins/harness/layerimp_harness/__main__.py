"""`python -m layerimp_harness`: the command `lm_eval`, with the model `layerimp` registered."""

from __future__ import annotations

import sys

from layerimp import LayerimpError


def main() -> None:
    """Run lm-eval's command; print a layerimp error as one line, and exit with the error's code."""
    from layerimp_harness import pruned  # noqa: F401  (registers the model)
    from layerimp_harness.lm_eval_names import cli_evaluate

    try:
        cli_evaluate()
    except LayerimpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
