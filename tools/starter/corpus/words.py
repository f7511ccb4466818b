"""The words from which the text is generated."""

from __future__ import annotations

GIRLS = tuple(
    "Ada Anna Cara Clara Dora Ella Emma Eva Grace Hana Ida Iris Julia Kate Lily Lucy Maya Mia Nora Rosa".split()
)
BOYS = tuple("Adam Ben Carl Dan David Finn Fred Hugo Ivan Jack Leo Luke Max Noah Oscar Paul Peter Sam Theo Tom".split())
PEOPLE = GIRLS + BOYS

ANIMALS = tuple(
    "badger bear beaver cat crow dog duck fox frog goat goose hare hedgehog horse mole mouse pig rabbit wolf".split()
)
COLOURS = tuple("black blue brown golden green grey pink purple red silver violet white yellow".split())
LOOKS = tuple("big bright broken dusty heavy little long new round rusty shiny small soft strange tiny wooden".split())
MOODS = tuple(
    "brave calm careful clever cross curious gentle happy hungry kind lazy lonely proud quiet sad shy sleepy".split()
)

THINGS = tuple(
    "ball basket bell book box button candle coat coin cup drum flute hat key kite knife lamp letter map mirror ring "
    "rope scarf spoon stone sword toy umbrella watch whistle".split()
)
"""Things that can be carried."""

FOOD = tuple("apples bread cake carrots cheese cookies eggs honey milk nuts pears pie plums soup".split())

CONTAINERS = tuple("backpack bag barrel bucket chest crate drawer jar pocket pot sack suitcase trunk".split())

PLACES = tuple(
    "attic|barn|bridge|cave|cellar|church|empty house|farm|fish market|forest|garden|green hill|harbour|kitchen|lake|"
    "library|long beach|meadow|mill|old castle|park|railway station|river|school|stone tower|stable|swamp|"
    "town hall|village|west wood".split("|")
)

WEATHER = tuple("bright|cloudy|cold|foggy|hot|quiet|rainy|snowy|sunny|warm|windy".split("|"))
TIMES = ("morning", "afternoon", "evening", "day", "night")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HIDING = ("behind", "beside", "near", "under")
SPOTS = tuple("bench bush fence gate hedge ladder log rock shed table tree wall well window".split())

PRAISE = tuple(
    "amazing beautiful brilliant charming clever delightful elegant enjoyable excellent fantastic fresh friendly funny "
    "generous good great helpful lovely magnificent memorable outstanding perfect pleasant polished remarkable "
    "splendid superb thoughtful warm wonderful".split()
)
BLAME = tuple(
    "annoying awful bad boring careless clumsy confusing cheap dirty disappointing dreadful dull empty flat horrible "
    "lifeless messy miserable noisy painful poor rude sad shallow slow stale terrible tiresome ugly unpleasant".split()
)

TOPICS: dict[str, tuple[str, ...]] = {
    "film": ("plot", "acting", "music", "ending", "dialogue", "camera work"),
    "play": ("plot", "acting", "costume", "ending", "dialogue", "stage"),
    "book": ("plot", "language", "cover", "ending", "first chapter", "hero"),
    "hotel": ("room", "breakfast", "view", "staff", "bed", "garden"),
    "restaurant": ("soup", "service", "wine", "dessert", "staff", "menu"),
    "concert": ("singer", "sound", "band", "hall", "light show", "crowd"),
    "museum": ("collection", "guide", "building", "shop", "tour", "staff"),
    "game": ("story", "music", "art", "puzzle", "sound", "final level"),
}
"""The subjects of reviews, each with its aspects."""
