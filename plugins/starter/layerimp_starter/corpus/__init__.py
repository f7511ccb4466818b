"""Generated English: the text that the starter model is trained, calibrated and measured on.

Three kinds of document, one per task family: `stories`, `sentiment` and `questions`; and `lists`, to begin with.
Everything is drawn from the words of `words.py` by rules in this package, so that the text is the project's own.

Every document belongs to one of two halves by a hash of its text: to those that training may see, and to those that
are held out. Nothing that is held out is ever trained on, whatever the seed.
"""

from __future__ import annotations

from layerimp_starter.corpus.document import Document
from layerimp_starter.corpus.draws import Kind, draw

__all__ = ["Document", "Kind", "draw"]
