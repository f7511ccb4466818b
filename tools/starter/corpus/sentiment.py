"""Reviews of one or two claims, whose sentiment depends on negation and contrast.

A claim is about one aspect. Its polarity is that of its adjective, inverted by each negation. If a word of contrast
joins two claims, the claim in the main clause decides the sentiment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpus.document import Document
from corpus.words import BLAME, PRAISE, TOPICS, WEEKDAYS

if TYPE_CHECKING:
    import random

QUESTION = "Sentiment:"
LABELS = ("negative", "positive")

# {a} aspect, {x} adjective; grouped by how often the form inverts the adjective's polarity.
_CLAIMS = (
    (
        "the {a} was {x}",
        "the {a} was really {x}",
        "I found the {a} {x}",
        "everyone called the {a} {x}",
        "I thought that the {a} would be {x}, and it was",
    ),
    (
        "the {a} was not {x}",
        "the {a} was never {x}",
        "the {a} was anything but {x}",
        "nobody called the {a} {x}",
        "I doubt that the {a} was {x}",
        "I thought that the {a} would be {x}, and it was not",
    ),
    (
        "it is not true that the {a} was not {x}",
        "nobody can say that the {a} was not {x}",
        "I doubt that anyone found the {a} anything but {x}",
    ),
)
# {m} the claim that decides the sentiment, {s} the other claim, of the opposite polarity.
_CONTRASTS = (
    "{s}, but {m}",
    "although {s}, {m}",
    "{m}, although {s}",
    "{m}, even though {s}",
    "{s}; still, {m}",
    "while {s}, {m}",
)
_AGREEMENTS = ("{s}, and {m}", "{s}; also, {m}", "not only that: {s}, and {m}")
_OPENINGS = (
    "We went to see the {t} on {d}.",
    "On {d} I gave the {t} a try.",
    "A friend told me about this {t}.",
    "This was our second {t} this year.",
    "I spent the whole {d} on this {t}.",
)


def make(rng: random.Random, level: float) -> Document:
    """Return a review with its sentiment; at level 0, of two claims that agree, without negation."""
    topic = rng.choice(sorted(TOPICS))
    aspects = rng.sample(TOPICS[topic], 2)
    positive = rng.random() < 0.5
    main = _claim(rng, aspects[0], positive, level)
    shape = rng.random() * level + 0.2 * (1 - level)
    if shape < 0.2:
        sentence = main
    elif shape < 0.35:
        sentence = rng.choice(_AGREEMENTS).format(s=_claim(rng, aspects[1], positive, level), m=main)
    else:
        sentence = rng.choice(_CONTRASTS).format(s=_claim(rng, aspects[1], not positive, level), m=main)
    sentence = sentence[0].upper() + sentence[1:] + "."
    if rng.random() < 0.5:
        sentence = rng.choice(_OPENINGS).format(t=topic, d=rng.choice(WEEKDAYS)) + " " + sentence
    return Document(sentence, ((QUESTION, LABELS[positive]),))


def _claim(rng: random.Random, aspect: str, positive: bool, level: float) -> str:
    # If every number of negations were equally likely, no word would hint at the sentiment, and a model would have no
    # incentive to learn the words at all.
    (turns,) = rng.choices((0, 1, 2), weights=(5, 3.5 * min(1, 2 * level), 1.5 * level))
    form = rng.choice(_CLAIMS[turns])
    words = PRAISE if positive ^ (turns == 1) else BLAME
    return form.format(a=aspect, x=rng.choice(words))
