"""Short stories whose end depends on their beginning: who went where, with what, and why.

A story follows one of several plots. A plot is a list of sentences, each in several wordings, with slots for the
characters, the places and the things. The end of a story needs details from its beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpus import words
from corpus.document import Document

if TYPE_CHECKING:
    import random

_Plot = tuple[tuple[str, ...], ...]

# {n} the hero, {he} {his} {him} the hero's pronouns; {m} a friend, {she} {her} the friend's pronouns; {a} {b} animals;
# {x} {y} things with a look, {f} {g} food; {p} {q} {r} places; {c} {d} containers; {k} {l} colours; {u} {v} moods;
# {s} {t} spots, {o} a word of place; {w} the weather, {e} the time of day, {j} a day of the week.
_PLOTS: tuple[_Plot, ...] = (
    (
        ("One {w} {e} {n} lost the {x}.", "It was a {w} {e} when {n} lost the {x}."),
        ("{He} had left it {o} the {s} at the {p}.", "It was lying {o} the {s} at the {p}, but {he} did not know."),
        ("First {he} looked in the {c}, but there was only a {y}.", "In the {c} {he} found nothing but a {y}."),
        ("Then {he} went to the {q} and asked {m} the {a}.", "At the {q} {he} met {m}, a {u} {a}."),
        ('"I saw your {x} at the {p}," said {m}.', '{m} said, "Go to the {p} and look {o} the {s}."'),
        ("So {n} ran to the {p} and looked {o} the {s}.", "They walked to the {p} together and looked {o} the {s}."),
        ("There was the {x}!", "And there it was, the {x}!"),
        ("{n} thanked the {a} and gave {m} some {f}.", "{m} was {v}, and {n} gave the {a} some {f}."),
    ),
    (
        ("{n} the {a} lived at the {p} with {m} the {b}.", "A {u} {a} and a {v} {b} lived at the {p}."),
        ("{n} loved {f} and {m} loved {g}.", "The {a} liked {f}, but the {b} only ate {g}."),
        ("One {w} {e} they went to the {q} with a {x}.", "On {j} they took the {x} and went to the {q}."),
        ("Near the {s} they found {f} and {g}.", "Someone had left {f} and {g} {o} the {s}."),
        ("The {a} ate the {f} and the {b} ate the {g}.", "{n} took the {f}, and {m} took the {g}."),
        ("They forgot the {x} {o} the {s}.", "When they went home, the {x} was still {o} the {s}."),
        ("On the way back to the {p} it was {w} again.", "It was late when they came back to the {p}."),
        ('"Where is the {x}?" asked {m}.', '{n} said, "We left the {x} at the {q}!"'),
        ("So the {a} and the {b} had to go to the {q} once more.", "The next {e} they went back to the {q} and got it."),  # noqa: E501
    ),
    (
        ("{n} had a {k} {c} and a {l} {d}.", "Before {n} stood a {k} {c} and a {l} {d}."),
        ("{He} put the {x} in the {k} {c}.", "In the {k} {c} {he} kept the {x}."),
        ("The {y} went into the {l} {d}.", "{He} put the {y} in the {l} {d}."),
        ("In the {e} {m} the {a} came in and asked for the {x}.", "{m} the {a} needed the {x}."),
        ("So {n} opened the {k} {c}.", "{n} went to the {c} and opened it."),
        ("The {a} took the {x} and went to the {p}.", '"Thank you," said {m}, and took the {x} to the {p}.'),
        ("On {j} {m} came for the {y}, too.", "Later {m} wanted the {y}, too."),
        ("{n} opened the {l} {d} and gave it to {her}.", "It was in the {l} {d}."),
        ("Now the {c} was empty, and {n} felt {u}.", "Now nothing was left, but {n} was {u}."),
    ),
    (
        ("{n} wanted to go from the {p} to the {q}.", "On {j} {n} left the {p} to go to the {q}."),
        ("{He} took a {x} and some {f}.", "In {his} {c} were a {x} and some {f}."),
        ("At the {r} a {u} {a} stood in the way.", "A {u} {a} was waiting at the {r}."),
        ('"Give me your {f} or you cannot pass," said the {a}.', 'The {a} said, "I am hungry."'),
        ("{n} gave the {f} to the {a}.", "So the {a} got the {f}."),
        ("The {a} was {v} and showed {him} the way.", "Now the {a} was {v}, and {n} could pass."),
        ("At last {n} came to the {q} with the {x}.", "In the {e} {he} was at the {q} and still had the {x}."),
        ("{m} was there and asked about the {f}.", '"Did you bring {f}?" asked {m}.'),
        ('"A {a} at the {r} ate it all," said {n}.', "{n} told {her} about the {a} at the {r}."),
    ),
    (
        ("{m} made a {x} for {n}.", "It was {j}, and {m} had made a {x} for {n}."),
        ("{She} hid it {o} the {s} at the {p}.", "It was hidden at the {p}, {o} the {s}."),
        ("{n} was {u}, for {he} thought that {m} had forgotten.", "But {n} did not know and was {u}."),
        ("{He} sat at the {q} and looked at a {y}.", "{He} went to the {q} and played with a {y}."),
        ('A {a} came and said, "Go to the {p}."', "Then a {w} wind brought a letter: go to the {p}."),
        ("{n} went and looked {o} the {s}.", "At the {p} {n} looked {o} the {s}."),
        ("{He} found the {x} and was not {u} any more.", "There {he} found the {x}."),
        ("{n} thanked {m} and left the {y} at the {q}.", '"It is from {m}!" said {n} and felt {v}.'),
    ),
    (
        ("The {a} said it would be {w}.", "It was going to be {w}, said the {a}."),
        ("{n} took the {x}, and {m} took the {y}.", "{m} packed the {y}, and {n} packed the {x}."),
        ("They met at the {p} and walked to the {q}.", "From the {p} they walked to the {q}."),
        ("There it was {w}, just as the {a} had said.", "The {a} was right: it was {w}."),
        ("{n} lost the {x} on the way.", "But the {x} fell out of the {c}."),
        ("{m} still had the {y}.", "Only the {y} was left, and {m} carried it."),
        ("So they went back to the {p} with the {y} and without the {x}.", "They came home to the {p} with one {y}."),
        ("{n} was {u}, and {m} gave {him} the {y}.", '"Take my {y}," said {m} to {n}, who was {u}.'),
    ),
    (
        ("{n} and {m} had a race from the {p} to the {q}.", "On {j} {n} raced against {m} from the {p} to the {q}."),
        ("{n} rode a {a}, and {m} rode a {b}.", "{m} had a {b}, and {n} had a {a}."),
        ("The one who won would get a {x}.", "There was a {x} for the winner."),
        ("At the {r} the {a} stopped to eat some {f}.", "The {a} saw some {f} at the {r} and stopped."),
        ("The {b} did not stop, and {m} came to the {q} first.", "So {m} on the {b} was the first at the {q}."),
        ("{m} got the {x}, and {n} was {u}.", "The {x} went to {m}."),
        ('"You like {f} too much," said {n} and patted the {a}.', "{n} was not angry with the {a}."),
        ("In the {e} {m} gave {n} the {x}, for {she} was {v}.", "They shared the {x} and went home to the {p}."),
    ),
    (
        ("A {u} {a} had a {x}, and a {v} {b} had a {y}.", "The {a} owned a {x}; the {b} owned a {y}."),
        ("The {a} wanted the {y}, and the {b} wanted the {x}.", '"I would like your {y}," said the {a}.'),
        ("They met {o} the {s} at the {p}.", "One {w} {e} they met at the {p}, {o} the {s}."),
        ("The {a} gave the {x} to the {b}.", "So the {b} got the {x}."),
        ("The {b} gave the {y} to the {a}.", "And the {a} got the {y}."),
        ("Then {n} came and asked who had the {x}.", '"Who has the {x}?" asked {n} on {j}.'),
        ('"I have it now," said the {b}.', "It was the {b} that had it."),
        ('"And I have the {y}," said the {a}.', "The {a} showed {him} the {y}."),
        ("{n} gave each of them some {f}.", "{n} laughed and went to the {q}."),
    ),
)  # fmt: skip


def make(rng: random.Random, level: float) -> Document:
    """Return a story; the level has no effect, since a language model learns from stories of any length."""
    slots = _cast(rng)
    sentences = (rng.choice(wordings).format(**slots) for wordings in rng.choice(_PLOTS))
    return Document(" ".join(sentences))


def _cast(rng: random.Random) -> dict[str, str]:
    boy = rng.random() < 0.5
    hero = rng.choice(words.BOYS if boy else words.GIRLS)
    friend_is_boy = rng.random() < 0.5
    friend = rng.choice([name for name in (words.BOYS if friend_is_boy else words.GIRLS) if name != hero])
    he, his, him = ("he", "his", "him") if boy else ("she", "her", "her")
    she, her = ("he", "him") if friend_is_boy else ("she", "her")
    looks, things = rng.sample(words.LOOKS, 2), rng.sample(words.THINGS, 2)
    slots = {"n": hero, "m": friend, "he": he, "He": he.title(), "his": his, "him": him}
    slots |= {"she": she, "She": she.title(), "her": her}
    slots |= {"x": f"{looks[0]} {things[0]}", "y": f"{looks[1]} {things[1]}"}
    for names, pool in (
        ("ab", words.ANIMALS),
        ("fg", words.FOOD),
        ("pqr", words.PLACES),
        ("cd", words.CONTAINERS),
        ("kl", words.COLOURS),
        ("uv", words.MOODS),
        ("st", words.SPOTS),
        ("o", words.HIDING),
        ("w", words.WEATHER),
        ("e", words.TIMES[:3]),
        ("j", words.WEEKDAYS),
    ):
        slots |= dict(zip(names, rng.sample(pool, len(names)), strict=True))
    return slots
