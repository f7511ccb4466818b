"""The version of layerimp."""

__version__ = "0.1.0"
