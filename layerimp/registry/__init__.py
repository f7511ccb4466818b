"""Plugins: finding them, loading them, looking up their components, and naming them in errors."""
