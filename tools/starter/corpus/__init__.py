"""Generated English: the text on which the starter model is trained, calibrated and measured.

There are three kinds of documents, one per task family: `stories`, `sentiment` and `questions`. A fourth kind, `lists`,
is used only at the start of the training. All text is generated from the words in `words.py` by rules in this package,
so the text is the project's own.

A hash of its text decides whether a document is held out or may be used for training. A held-out document is never
used for training, whatever the seed.
"""

from __future__ import annotations

from corpus.document import Document
from corpus.draws import Kind, draw

__all__ = ["Document", "Kind", "draw"]
