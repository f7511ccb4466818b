"""Passages of facts about people, things and places, with questions that need one to three of the facts.

A thing is with a person, or in a container that is with a person; a person is at a place. In the course of a passage,
things may change hands. The answer to "Where is the red key?" depends on the person who has the key, or the container
with the key, and on that person's place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corpus.document import Document
from corpus.words import COLOURS, CONTAINERS, PEOPLE, PLACES, THINGS

if TYPE_CHECKING:
    import random

_AT = ("{p} is at the {l}.", "{p} went to the {l}.", "{p} is waiting at the {l}.", "You can find {p} at the {l}.")
_HAS = ("{p} has the {t}.", "{p} took the {t}.", "{p} is holding the {t}.", "The {t} is with {p}.")
_IN = ("The {t} is in the {c}.", "Someone put the {t} in the {c}.", "The {c} holds the {t}.")
_NOTES = {_AT: "{p} {l}.", _HAS: "{t} {p}.", _IN: "{t} {c}."}
"""The short form of each fact at low levels, in which the answer directly follows the word asked about."""

_GIVES = ("{p} gave the {t} to {q}.", "{q} got the {t} from {p}.", "{p} handed the {t} to {q}.")

SENTENCES_FROM = 0.25
"""The level from which on every fact is a full sentence."""


@dataclass
class _World:
    """The places of people, and the holders and containers of things."""

    place: dict[str, str] = field(default_factory=dict)
    holder: dict[str, str] = field(default_factory=dict)
    inside: dict[str, str] = field(default_factory=dict)

    def keeper(self, thing: str) -> str:
        return self.holder[self.inside.get(thing, thing)]


def make(rng: random.Random, level: float) -> Document:
    """Return a passage and all questions about it, in random order; at level 0, short facts on 2 people and 1 thing."""
    world = _World()
    crowd = rng.sample(PEOPLE, rng.randint(2, 2 + round(2 * level)))
    for person, place in zip(crowd, rng.sample(PLACES, len(crowd)), strict=True):
        world.place[person] = place

    def put(wordings: tuple[str, ...], **slots: str) -> str:
        wording = rng.choice(wordings) if rng.random() < level / SENTENCES_FROM else _NOTES[wordings]
        return wording.format(**slots)

    facts = [put(_AT, p=person, l=place) for person, place in world.place.items()]
    kinds = rng.sample(THINGS, rng.randint(1, 1 + round(2 * level)))
    things = [f"{rng.choice(COLOURS)} {kind}" for kind in kinds]
    for thing in things:
        if level > 0.4 and rng.random() < 0.25 * level and len(world.inside) < 2:
            container = rng.choice([c for c in CONTAINERS if c not in world.holder])
            world.inside[thing] = container
            world.holder[container] = rng.choice(crowd)
            facts.append(put(_IN, t=thing, c=container))
            facts.append(put(_HAS, p=world.holder[container], t=container))
        else:
            world.holder[thing] = rng.choice(crowd)
            facts.append(put(_HAS, p=world.holder[thing], t=thing))
    rng.shuffle(facts)
    if level > 0.6 and rng.random() < 0.3:
        moved = rng.choice(sorted(world.holder))
        giver = world.holder[moved]
        taker = rng.choice([person for person in crowd if person != giver])
        world.holder[moved] = taker
        facts.append(rng.choice(_GIVES).format(p=giver, q=taker, t=moved))
    asked = [(f"Where is {person}?", f"the {place}") for person, place in world.place.items()]
    asked += [(f"Who has the {item}?", person) for item, person in world.holder.items()]
    asked += [(f"Who has the {thing}?", world.keeper(thing)) for thing in world.inside]
    asked += [(f"Where is the {thing}?", f"the {world.place[world.keeper(thing)]}") for thing in things]
    rng.shuffle(asked)
    return Document(" ".join(facts), tuple(asked))
