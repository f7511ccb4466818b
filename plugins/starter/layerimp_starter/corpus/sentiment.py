"""Reviews of one or two claims, whose verdict hangs on negation and on contrast.

A claim is about one aspect; its polarity is that of its adjective, turned round by each negation. Of two claims that
a word of contrast joins, the one in the main clause decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp_starter.corpus.document import Document
from layerimp_starter.corpus.words import BLAME, PRAISE, TOPICS, WEEKDAYS

if TYPE_CHECKING:
    import random

QUESTION = "Sentiment:"
LABELS = ("negative", "positive")

# {a} aspect, {x} adjective; by how often the form turns the adjective's polarity round.
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
# {m} the claim that decides, {s} the one that does not, of the opposite polarity.
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
    """A review and its sentiment; at level 0 one plain claim."""
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
    # Were every number of negations as likely as any other, no word would hint at the verdict, and nothing would pull
    # a model towards learning the words at all.
    (turns,) = rng.choices((0, 1, 2), weights=(5, 3.5 * min(1, 2 * level), 1.5 * level))
    form = rng.choice(_CLAIMS[turns])
    words = PRAISE if positive ^ (turns == 1) else BLAME
    return form.format(a=aspect, x=rng.choice(words))
