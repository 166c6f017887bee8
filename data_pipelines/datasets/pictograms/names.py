"""Names of the pictograms: which ones a data set shows, their articles and their plurals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# Chosen by eye at 16 pixels: easily named, countable, singular, and no two alike.
PICTOGRAMS = tuple(
    name.strip()
    for name in """
    dog, cat, fox, wolf, lion, panda, koala, penguin, owl, frog, snail, butterfly, octopus, crab, whale, shark,
    turtle, snake, elephant, giraffe, zebra, flamingo, parrot, peacock, rooster, spider, unicorn, pig, cow, teddy bear,
    banana, pineapple, strawberry, watermelon, lemon, carrot, mushroom, hamburger, doughnut, cupcake, pretzel,
    lollipop, avocado, eggplant, tomato,
    umbrella, guitar, trumpet, drum, bicycle, sailboat, rocket, helicopter, tractor, bus, taxi, locomotive, balloon,
    key, hammer, anchor, candle, crown, top hat, backpack, trophy, teapot, chair, camera, magnet, soccer ball, star,
    rainbow, cactus, sunflower, palm tree, snowman, castle, tent, house
    """.split(",")
)
HELD_OUT_SHARE = 1 / 6  # of the names of a user's own folder

# Words that the texts use themselves: a pictogram with such a name would make them ambiguous.
RESERVED_WORDS = frozenset(
    """a an the it them both and then also with without for from of to in on at by where was is are be into instead
    small smaller little large larger big bigger top bottom left right up down above below under next beside corner
    add remove replace move swap make turn put no now gets there picture""".split()
)
_AN = ("honest", "hour", "heir")  # a silent h
_NOT_AN = ("uni", "use", "uk", "ut", "eu", "one", "ewe", "ufo")  # a vowel letter that sounds like a consonant
_IRREGULAR = {
    pair.split()[0]: pair.split()[1]
    for pair in """
    wolf wolves, mouse mice, goose geese, man men, woman women, snowman snowmen, child children, person people, foot
    feet, tooth teeth, ox oxen, knife knives, wife wives, life lives, leaf leaves, loaf loaves, half halves, shelf
    shelves, scarf scarves, calf calves, elf elves, thief thieves, cactus cacti, potato potatoes, tomato tomatoes,
    mango mangoes, volcano volcanoes, hero heroes, mosquito mosquitoes, sheep sheep, fish fish, deer deer, squid
    squid, shrimp shrimp, aircraft aircraft, dice dice""".split(",")
}


def choose(
    names_available: Iterable[str], *, count: int = 80, held_out: int | None = None, seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Chooses the names of a data set.

    A hash of the name and the seed decides which ones are held out, so that adding a picture to a folder seldom moves
    another one.

    Args:
      names_available: Twemoji's, of which the first `count` curated names are taken, or those of a user's own folder,
        of which all are taken.
      count: curated names.
      held_out: how many are held out; None: 14 of 80 curated names, a sixth of a user's own.
      seed: of the hash.

    Returns:
      (seen names, held-out names), both sorted.

    Raises:
      ValueError: there are too few names, or a name is not plain words that the texts do not use themselves.
    """
    available = set(names_available)
    curated = available.issuperset(PICTOGRAMS)
    names = list(PICTOGRAMS[:count]) if curated else sorted(available)
    if held_out is None:
        held_out = round(len(names) * (14 / 80 if curated else HELD_OUT_SHARE))
    if not curated:
        _check(names)
    if not 0 <= held_out <= len(names) - 6:
        raise ValueError(
            f"Got {len(names)} pictograms of which {held_out} are held out, but at least 6 must be left for training: "
            "add pictures or hold out fewer."
        )
    by_hash = sorted(names, key=lambda name: hashlib.blake2b(f"{seed}/{name}".encode()).digest())
    cut = len(names) - held_out
    return tuple(sorted(by_hash[:cut])), tuple(sorted(by_hash[cut:]))


def _check(names: list[str]) -> None:
    if len(names) < 12:
        raise ValueError(
            f"Got {len(names)} pictograms, but at least 12 are needed to compose scenes: add pictures named after "
            "what they show, such as 'red apple.png'."
        )
    for name in names:
        words = name.split()
        if not words or not all(w.isalnum() and w.isascii() for w in words) or RESERVED_WORDS.intersection(words):
            raise ValueError(
                f"Got the pictogram name '{name}', but names are plain words that the texts do not use themselves "
                "(not 'small', 'left', 'and', …): rename its file."
            )


def a(name: str) -> str:
    """Returns the name with its indefinite article: "a dog", "an umbrella", "a unicorn"."""
    vowel = name.startswith(_AN) or (name[0] in "aeiou" and not name.startswith(_NOT_AN))
    return f"{'an' if vowel else 'a'} {name}"


def plural(name: str) -> str:
    """Returns the plural of a name; only the last word changes: "teddy bears", "foxes", "butterflies"."""
    *before, word = name.split()
    if word in _IRREGULAR:
        word = _IRREGULAR[word]
    elif word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        word = word[:-1] + "ies"
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        word += "es"
    else:
        word += "s"
    return " ".join([*before, word])
