"""Modes are changed for a while, and come back."""

from __future__ import annotations

import logging

import pytest
import transformers

from layerimp.blocks.modes import quiet


def levels() -> tuple[int, int, bool]:
    log = transformers.logging
    return log.get_verbosity(), logging.getLogger("huggingface_hub").level, log.is_progress_bar_enabled()


def test_quiet_inside_quiet_changes_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of a level clears the caches of all loggers, which takes longer than a small model runs."""
    before = levels()
    with quiet():
        inside = levels()
        assert inside == (logging.ERROR, logging.CRITICAL, False)
        with monkeypatch.context() as patched:
            patched.setattr(logging.Logger, "setLevel", lambda *_args: pytest.fail("a level is set"))
            with quiet():
                assert levels() == inside
        assert levels() == inside
    assert levels() == before
