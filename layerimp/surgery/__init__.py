"""Removing blocks: exactly and reversibly, or not at all."""
