"""The versions of the libraries that a result depends on."""

from __future__ import annotations

from importlib.metadata import version

from layerimp._version import __version__


def versions() -> str:
    """Return in words the versions of layerimp and of the libraries that compute and evaluate."""
    names = ("torch", "transformers", "lm_eval")
    return ", ".join([f"layerimp {__version__}", *(f"{name} {version(name)}" for name in names)])
