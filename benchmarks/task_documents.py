"""Writes the documents of the benchmarks' own tasks: grammar, common knowledge, and copying over a distance.

    python benchmarks/task_documents.py

All are made from the templates and word lists below, which were written for this project. A pair is a beginning of a
sentence with two endings, of which only the first is right: by grammar, or by what is generally known. To copy is to
continue a list of words, in no order, that was given before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
PAIRS_OF_A_KIND = 50
LISTS = 200
LENGTH = (12, 16)
"""How many words a list has, at least and at most."""
WANTED = 2
"""How many words are to be copied."""

NOUNS = [
    *(("boy", "boys"), ("girl", "girls"), ("teacher", "teachers"), ("doctor", "doctors"), ("farmer", "farmers")),
    *(
        ("student", "students"),
        ("driver", "drivers"),
        ("singer", "singers"),
        ("guard", "guards"),
        ("painter", "painters"),
    ),
    *(("lawyer", "lawyers"), ("neighbor", "neighbors"), ("pilot", "pilots"), ("baker", "bakers"), ("judge", "judges")),
]
PLACES = [
    "the house",
    "the river",
    "the old bridge",
    "the window",
    "the station",
    "the market",
    "the gate",
    "the church",
]
STATES = ["tired", "happy", "late", "angry", "ready", "hungry", "famous", "quiet", "ill", "proud"]
SEEN = ["saw", "met", "liked", "knew", "called", "helped", "followed", "paid"]
HURT = ["hurt", "saw", "blamed", "introduced", "taught", "trusted", "described", "helped"]
MEN, WOMEN = ["boy", "man", "king", "father", "uncle"], ["girl", "woman", "queen", "mother", "aunt"]
THINGS = [
    *(("book", "books"), ("chair", "chairs"), ("letter", "letters"), ("picture", "pictures"), ("bottle", "bottles")),
    *(("window", "windows"), ("garden", "gardens"), ("song", "songs"), ("coat", "coats"), ("ticket", "tickets")),
]
FORMS = [
    *(("broken", "broke", "the cup"), ("eaten", "ate", "the bread"), ("written", "wrote", "a letter")),
    *(("taken", "took", "the train"), ("stolen", "stole", "the money"), ("seen", "saw", "the film")),
    *(("forgotten", "forgot", "the key"), ("chosen", "chose", "a color"), ("given", "gave", "a speech")),
    *(("driven", "drove", "the truck"), ("drawn", "drew", "a map"), ("known", "knew", "the answer")),
]
DEGREES = [("tall", "taller"), ("old", "older"), ("strong", "stronger"), ("kind", "kinder"), ("rich", "richer")]
THINGS_IN_LISTS = [
    *(
        "apple",
        "knife",
        "candle",
        "hammer",
        "mirror",
        "piano",
        "camera",
        "basket",
        "ladder",
        "lemon",
        "carpet",
        "guitar",
    ),
    *("helmet", "bottle", "pencil", "rabbit", "turtle", "violin", "wallet", "blanket", "stone", "feather", "clock"),
]
COUNTRIES = {
    "Europe": "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Poland Warsaw, Greece Athens, Ireland Dublin, "
    "Sweden Stockholm, Norway Oslo, Finland Helsinki, Denmark Copenhagen, Austria Vienna, Hungary Budapest, "
    "Portugal Lisbon, Belgium Brussels, Romania Bucharest, Bulgaria Sofia, Ukraine Kyiv, Serbia Belgrade",
    "Asia": "Japan Tokyo, China Beijing, Thailand Bangkok, Vietnam Hanoi, Iran Tehran, Iraq Baghdad, Syria Damascus, "
    "Pakistan Islamabad, Nepal Kathmandu, Bangladesh Dhaka, Afghanistan Kabul, Mongolia Ulaanbaatar, Lebanon Beirut, "
    "Indonesia Jakarta",
    "Africa": "Egypt Cairo, Kenya Nairobi, Ethiopia Addis_Ababa, Ghana Accra, Libya Tripoli, Nigeria Abuja, "
    "Zimbabwe Harare, Uganda Kampala, Senegal Dakar, Angola Luanda, Sudan Khartoum, Somalia Mogadishu",
    "South America": "Peru Lima, Chile Santiago, Argentina Buenos_Aires, Brazil Brasilia, Venezuela Caracas, "
    "Uruguay Montevideo, Colombia Bogota",
}
"""Countries with their capitals, by continent."""
OPPOSITES = (
    "hot cold, big small, fast slow, high low, old young, good bad, rich poor, wet dry, light dark, hard soft, "
    "full empty, loud quiet, early late, open closed, strong weak, happy sad, clean dirty, thick thin, near far, "
    "deep shallow, wide narrow, heavy light, true false, right wrong, up down, left right, in out, first last, "
    "day night, black white, love hate, war peace, life death, north south, east west, male female, buy sell, "
    "push pull, win lose, begin end, ask answer, give take, come go, always never, before after, above below, "
    "summer winter, friend enemy, tall short, safe dangerous"
)
KINDS_OF_THINGS = {
    "animal": "dog cat horse cow sheep lion tiger wolf monkey rabbit",
    "bird": "eagle sparrow owl robin crow hawk pigeon swan",
    "fruit": "banana peach mango cherry pear plum grape lemon",
    "tool": "hammer saw drill wrench screwdriver shovel",
    "flower": "rose tulip daisy lily orchid sunflower",
    "musical instrument": "guitar piano violin flute trumpet drum",
    "vegetable": "carrot onion cabbage potato turnip radish",
}
Pair = tuple[str, str, str]
"""The beginning of a sentence, its right ending, and another one."""


def across_a_phrase(draw: random.Random) -> Pair:
    """The verb agrees with its subject, and not with the nearer noun: `The boys near the gate were tired.`"""
    noun, number = draw.choice(NOUNS), draw.randrange(2)
    verbs = ("was", "were")
    state = draw.choice(STATES)
    start = f"The {noun[number]} near {draw.choice(PLACES)}"
    if number == 0:  # then the nearer noun is a plural
        start = f"The {noun[0]} with the {draw.choice(THINGS)[1]}"
    return start, f"{verbs[number]} {state}.", f"{verbs[1 - number]} {state}."


def across_a_clause(draw: random.Random) -> Pair:
    """The same, with a clause in between: `The boy that the teachers met is happy.`"""
    (first, second), number = draw.sample(NOUNS, 2), draw.randrange(2)
    verbs, state = ("is", "are"), draw.choice(STATES)
    start = f"The {first[number]} that the {second[1 - number]} {draw.choice(SEEN)}"
    return start, f"{verbs[number]} {state}.", f"{verbs[1 - number]} {state}."


def after_a_determiner(draw: random.Random) -> Pair:
    """A noun has the number of its determiner: `She looked at these old books.`"""
    thing, number = draw.choice(THINGS), draw.randrange(2)
    determiner = draw.choice((("this", "that"), ("these", "those"))[number])
    start = f"{draw.choice(('She', 'He'))} looked at {determiner} {draw.choice(('old', 'small', 'new', 'green'))}"
    return start, f"{thing[number]}.", f"{thing[1 - number]}."


def reflexive(draw: random.Random) -> Pair:
    """A reflexive agrees with its subject: `The king near the gate hurt himself.`"""
    which = draw.randrange(2)
    noun, own = draw.choice((MEN, WOMEN)[which]), ("himself", "herself")
    start = f"The {noun} near {draw.choice(PLACES)} {draw.choice(HURT)}"
    return start, f"{own[which]}.", f"{own[1 - which]}."


def participle(draw: random.Random) -> Pair:
    """After `has` comes a participle: `The pilot has broken the cup.`"""
    noun, (right, wrong, rest) = draw.choice(NOUNS), draw.choice(FORMS)
    number = draw.randrange(2)
    start = f"The {noun[number]} {('has', 'have')[number]} {draw.choice(('already', 'never', 'often', 'just'))}"
    return start, f"{right} {rest}.", f"{wrong} {rest}."


def comparison(draw: random.Random) -> Pair:
    """`Taller` wants `than`, and `as tall` wants `as`: `The judge near the gate is taller than the pilot.`"""
    (first, second), which = draw.sample(NOUNS, 2), draw.randrange(2)
    degree, words = draw.choice(DEGREES), ("than", "as")
    start = f"The {first[0]} near {draw.choice(PLACES)} is {(degree[1], f'as {degree[0]}')[which]}"
    return start, f"{words[which]} the {second[0]}.", f"{words[1 - which]} the {second[0]}."


GRAMMAR: tuple[Callable[[random.Random], Pair], ...] = (
    across_a_phrase,
    across_a_clause,
    after_a_determiner,
    reflexive,
    participle,
    comparison,
)


def capital(draw: random.Random) -> Iterator[Pair]:
    """`The capital of France is Paris.`, and not that of another country."""
    known = dict(in_pairs(", ".join(COUNTRIES.values())))
    for country, city in known.items():
        yield f"The capital of {country} is", f"{city}.", f"{another(city, known.values(), draw)}."


def continent(draw: random.Random) -> Iterator[Pair]:
    """`Kenya is a country in Africa.`, and not in Europe."""
    for where, countries in COUNTRIES.items():
        for country, _ in in_pairs(countries):
            yield f"{country} is a country in", f"{where}.", f"{another(where, COUNTRIES, draw)}."


def opposite(draw: random.Random) -> Iterator[Pair]:
    """`The opposite of hot is cold.`, and not another word of the list."""
    known = in_pairs(OPPOSITES)
    for word, contrary in known:
        others = [second for pair in known if word not in pair and contrary not in pair for second in pair[1:]]
        yield f"The opposite of {word} is", f"{contrary}.", f"{draw.choice(others)}."


def kind_of_thing(draw: random.Random) -> Iterator[Pair]:
    """`The eagle is a kind of bird.`, and not a kind of tool."""
    for kind, things in KINDS_OF_THINGS.items():
        others = KINDS_OF_THINGS.keys() - ({"animal", "bird"} if kind == "bird" else {kind})  # a bird is an animal
        for thing in things.split():
            yield f"The {thing} is a kind of", f"{kind}.", f"{draw.choice(sorted(others))}."


KNOWLEDGE: tuple[Callable[[random.Random], Iterator[Pair]], ...] = (capital, continent, opposite, kind_of_thing)


def in_pairs(text: str) -> list[tuple[str, str]]:
    """Return the words of a list such as `hot cold, big small` in pairs; `_` is a space within a word."""
    return [(first, second.replace("_", " ")) for first, second in (one.split() for one in text.split(", "))]


def another(one: str, of: Iterable[str], draw: random.Random) -> str:
    """Return any but the one."""
    return draw.choice([other for other in of if other != one])


def grammar() -> Iterator[dict[str, str]]:
    """Yield the minimal pairs of grammar, of each kind as many, all different."""
    for kind in GRAMMAR:
        draw = random.Random(kind.__name__)
        found: dict[Pair, None] = {}
        while len(found) < PAIRS_OF_A_KIND:
            found[kind(draw)] = None
        yield from map(partial(document, kind.__name__), found)


def knowledge() -> Iterator[dict[str, str]]:
    """Yield the pairs of what is generally known."""
    for kind in KNOWLEDGE:
        yield from map(partial(document, kind.__name__), kind(random.Random(kind.__name__)))


def document(kind: str, pair: Pair) -> dict[str, str]:
    """Return a pair as a document of a task."""
    start, right, wrong = pair
    return {"kind": kind, "start": start, "right": right, "wrong": wrong}


def lists() -> Iterator[dict[str, str]]:
    """Yield lists of words in no order, each begun a second time, and the words that come next."""
    draw = random.Random("copying")
    while True:
        words = draw.sample(THINGS_IN_LISTS, draw.randint(*LENGTH))
        known = draw.randint(WANTED, len(words) - WANTED - 1)
        text = f"{', '.join(words)}.\n{', '.join(words[:known])},"
        yield {"text": text, "next": ", ".join(words[known : known + WANTED])}


def documents() -> dict[str, list[dict[str, str]]]:
    """Return the documents, by the name of their file."""
    return {
        "grammar.jsonl": mixed(grammar()),
        "knowledge.jsonl": mixed(knowledge()),
        "copying.jsonl": list(islice(lists(), LISTS)),
    }


def mixed(documents: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Return the documents in an order such that the first ones are of all kinds."""
    found = list(documents)
    random.Random("order").shuffle(found)
    return found


if __name__ == "__main__":
    for name, found in documents().items():
        (TASKS / name).write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
