"""Names of the pictograms: which ones a data set shows, their articles and their plurals."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping

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
# Words that belong to the clauses of descriptions, so that no name is parsed across them.
FUNCTION_WORDS = frozenset(
    """a an the it and both neither nor is are isn not no of in to than as can be seen there one two three four five
    exactly only just all small large larger smaller bigger size same things thing everything nothing something shows
    picture empty differ anywhere nowhere left right above below next beside while but here this
    where which whose with has have
    most fewest more fewer largest smallest second furthest further closest closer highest higher lowest lower up down
    other pictures any stands found apart number distance""".split()
)
# Names that inflect, the library that articles and plurals come from, gets wrong.
_INVARIANT = frozenset("squid shrimp".split())
_OES = frozenset("potato tomato hero echo mango volcano mosquito torpedo tornado buffalo domino".split())  # else -os
_IRREGULAR = {"cactus": "cacti", "die": "dice", "snowman": "snowmen"}
_SINGULAR_ENDS = ("us", "is", "as", "ss", "lens", "ceros")  # of names that inflect takes for plurals
_ONLY_PLURAL = frozenset("scissors trousers pliers shears tweezers binoculars".split())
# Pictures that show several things have a name that counts as one: "a pair of scissors", "a bunch of grapes".
PLURALS_FILE = "plural.txt"
UNIT = "bunch"
_PAIRS = frozenset(
    """scissors trousers pliers shears tweezers binoculars glasses sunglasses goggles jeans shorts pants briefs tongs
    chopsticks socks gloves mittens shoes boots sandals skis skates headphones earrings cherries""".split()
)


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
    if bad := [name for name in names if not _is_plain(name)]:
        quoted = ", ".join(f"'{name}'" for name in bad)
        raise ValueError(
            f"Got the pictogram name{'s' * (len(bad) > 1)} {quoted}, but names are plain words that the texts do not "
            "use themselves (not 'small', 'left', 'and', …): rename the files."
        )


def _is_plain(name: str) -> bool:
    unit, of, counted = name.partition(" of ")
    words = [*unit.split(), *counted.split()] if of and " " not in unit else name.split()
    own = RESERVED_WORDS | FUNCTION_WORDS
    return bool(words) and all(w.isalnum() and w.isascii() for w in words) and not own.intersection(words)


def countable(name: str, units: Mapping[str, str]) -> str:
    """Returns the name that texts use of a picture: "pair of scissors" for "scissors".

    Args:
      name: what the picture is called.
      units: from names that are plural only, or seem so, to the word for one of them; an empty word says that the name
        is no plural. Names that are not in it are plural where their last word is one.
    """
    unit = units.get(name)
    if unit is None:
        last = name.split()[-1:]
        unit = (("pair" if last[0] in _PAIRS else UNIT) if _is_plural(*last) else "") if last else ""
    return f"{unit} of {name}" if unit else name


def read_units(text: str, names: Collection[str], *, place: str) -> dict[str, str]:
    """Returns the `units` of `countable` from a file with a line for each name: "grapes: bunch", "jeans", "news: -".

    Without a word the unit is "bunch"; "-" says that the name is no plural. Lines that begin with # are comments.

    Raises:
      ValueError: a name is not one of `names`, or a unit is not one plain word.
    """
    units, bad = {}, []
    for line in map(str.strip, text.lower().splitlines()):
        if not line or line.startswith("#"):
            continue
        name, colon, unit = (part.strip() for part in line.partition(":"))
        unit = unit if colon else "pair" if name.split()[-1] in _PAIRS else UNIT
        if name not in names or not (unit == "-" or (unit.isalpha() and unit not in RESERVED_WORDS)):
            bad.append(line)
        units[name] = unit.strip("-")
    if bad:
        quoted = ", ".join(f"'{line}'" for line in bad)
        raise ValueError(
            f"{place} has {quoted}; expected lines such as 'grapes: bunch', each with the name of a picture in the "
            "folder and the word for one of them, or '-' where the name is no plural."
        )
    return units


@functools.cache
def _inflect():
    import inflect

    return inflect.engine()


@functools.cache
def _is_plural(word: str) -> bool:
    if word in _ONLY_PLURAL:
        return True
    if word.endswith(_SINGULAR_ENDS) or len(word) < 2:
        return False
    one = _inflect().singular_noun(word)
    return bool(one) and one != word and plural(str(one)) == word


@functools.cache
def a(name: str) -> str:
    """Returns the name with its indefinite article: "a dog", "an umbrella", "a unicorn"."""
    word = name.split()[0]
    is_spelt = len(word) == 1 or (word[0].isalpha() and any(c.isdigit() for c in word))  # "x ray", "mp3 player"
    if is_spelt or word[0].isdigit():
        return f"{'an' if word[0] in 'aefhilmnorsx8' or word[:2] in ('11', '18') else 'a'} {name}"
    return f"{_inflect().a(word).split()[0]} {name}"


@functools.cache
def plural(name: str) -> str:
    """Returns the plural of a name: "teddy bears", "foxes", "butterflies", "pairs of scissors"."""
    unit, of, counted = name.partition(" of ")
    *before, word = unit.split()
    if word in _INVARIANT:
        many = word
    elif word in _IRREGULAR:
        many = _IRREGULAR[word]
    elif word.endswith("o"):
        many = f"{word}es" if word in _OES else f"{word}s"
    else:
        many = str(_inflect().plural_noun(word))
    return " ".join([*before, many]) + of + counted
