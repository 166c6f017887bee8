"""Random scenes, and pairs of scenes that are one or two random edits apart."""

from random import Random

from data_pipelines.datasets.pictograms import edits
from data_pipelines.datasets.pictograms.edits import OPERATIONS, Edit
from data_pipelines.datasets.pictograms.names import PICTOGRAMS
from data_pipelines.datasets.pictograms.scenes import SIZES, Scene, Thing, make_scene


def random_scene(rng: Random) -> Scene:
    count = rng.randint(1, 4)
    chosen = zip(rng.sample(range(4), count), rng.sample(PICTOGRAMS, count), strict=True)
    return make_scene(Thing(place, name, rng.choice(SIZES)) for place, name in chosen)


def random_edit(scene: Scene, rng: Random) -> Edit:
    names = [thing.name for thing in scene.things]
    new = rng.choice([name for name in PICTOGRAMS if name not in names])
    return Edit(
        rng.choice(OPERATIONS),
        *[rng.choice([new, *names])],
        place=rng.randrange(4),
        size=rng.choice(SIZES),
        other=rng.choice([new, *names]),
    )


def random_pairs(seed: int, count: int):
    """Pairs of scenes one or two random edits apart."""
    rng = Random(seed)
    while count:
        reference = target = random_scene(rng)
        for _ in range(rng.choice((1, 2))):
            while (changed := edits.steps([random_edit(target, rng)], target)) is None:
                pass
            target = changed
        if target.things and target != reference:
            count -= 1
            yield reference, target, rng
