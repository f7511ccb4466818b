"""The version of layerimp, and those of the libraries that results depend on."""

from functools import cache

__version__ = "0.1.0"


@cache
def versions() -> str:
    """Return in words the versions of layerimp and of the libraries that compute and evaluate."""
    from importlib.metadata import version  # slow, and not needed by most commands

    names = ("torch", "transformers", "lm_eval")
    return ", ".join([f"layerimp {__version__}", *(f"{name} {version(name)}" for name in names)])
