"""A stand-in for models that reads the scene graphs of the pictograms; every record says that no model made it.

Descriptions are taken from the scenes, and texts are worded from the two descriptions alone. Training on them shows how
the pipeline works, not how good a model's texts would be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import UserError
from data_pipelines.chat.questions import Question, Reply
from data_pipelines.datasets.pictograms.edits import Edit, difference
from data_pipelines.datasets.pictograms.names import a
from data_pipelines.datasets.pictograms.scenes import PLACES, SIZES, Scene, make_scene
from data_pipelines.datasets.pictograms.scenes import Thing as Placed

NAME = "rules: pictogram scene graphs, no model"
_WORDINGS: Mapping[str, tuple[str, ...]] = {
    "add": ("add a {size} {name} in the {place}", "put a {size} {name} in the {place} corner"),
    "remove": ("remove the {name}", "take away the {name}"),
    "replace": ("replace the {name} with {a_other}", "change the {name} into {a_other}"),
    "move": ("move the {name} to the {place}", "bring the {name} to the {place} corner"),
    "swap": ("swap the {name} and the {other}", "switch the places of the {name} and the {other}"),
    "resize": ("make the {name} {change}",),
}
_CHANGE = {"small": "smaller", "large": "larger"}


def read_scenes(folder: Path, split: str) -> dict[str, Any]:
    """Reads the scene graphs of a split of the pictograms in CIRR's layout: picture name -> scene graph.

    Args:
      folder: the folder of the pictograms, or one of pictures inside it.
      split: the split.

    Raises:
      UserError: the folder has no scene graphs.
    """
    file = f"scenes/scenes.{split}.json"
    path = next((place / file for place in (folder, *folder.absolute().parents) if (place / file).exists()), None)
    if path is None:
        raise UserError(
            f"{folder} has no {file}; --backend=rules reads the scene graphs of the pictograms (of "
            "experiments.generate): give another backend for other pictures."
        )
    return read_json(path, dict, layout="the pictograms")


class RulesModel:
    """Answers the three questions by rule."""

    name = NAME
    settings: Mapping[str, Any] = {"version": 1}

    def __init__(self, scenes: Mapping[str, Any]):
        """Takes the scene graphs by picture name, without folder and suffix."""
        self._scenes = scenes

    def answer(self, question: Question) -> Reply:
        """Returns the reply. Raises UserError: the picture is no pictogram, or its description is not by rule."""
        key, values = question.key(self), dict(question.values)
        if question.prompt.name == "difference":
            items: list[Any] = _texts(_scene(values["reference"]), _scene(values["target"]), values, Random(key))
        else:
            shown = question.pictures[0].id
            scene = self._scenes.get(Path(shown).stem)
            if scene is None:
                raise UserError(f"There is no scene graph of {shown}; --backend=rules is for pictograms only.")
            items = [{"object": thing["name"], "details": f"{thing['size']}, {thing['place']}"} for thing in scene]
        return Reply(key, self.name, question.prompt.id, json.dumps(items))


def _scene(listed: str) -> Scene:
    """Rebuilds the scene from a list that this model wrote."""
    things = []
    for thing in json.loads(listed):
        size, _, place = thing["details"].partition(", ")
        if size not in SIZES or place not in PLACES:
            raise UserError(f"'{thing['details']}' is no description by rule; don't mix --backend=rules with another.")
        things.append(Placed(PLACES.index(place), thing["object"], size))
    return make_scene(things)


def _texts(reference: Scene, target: Scene, values: Mapping[str, str], rng: Random) -> list[str]:
    """Words different texts, each asking for every difference; none where there are more than two differences."""
    edits = difference(reference, target)
    if edits is None:
        return []
    texts: dict[str, None] = {}
    for _ in range(8 * int(values["count"])):
        text = " and ".join(_clause(edit, rng) for edit in edits)
        if len(text) < int(values["characters"]):
            texts.setdefault(text[0].upper() + text[1:] + ".")
    return list(texts)[: int(values["count"])]


def _clause(edit: Edit, rng: Random) -> str:
    fields = {
        "name": edit.name,
        "size": edit.size,
        "place": PLACES[edit.place] if edit.place is not None else "",
        "other": edit.other,
        "a_other": a(edit.other) if edit.other else "",
        "change": _CHANGE.get(edit.size or "", ""),
    }
    return rng.choice(_WORDINGS[edit.operation]).format(**fields)


def with_scenes(folder: Path, splits: Sequence[str]) -> RulesModel:
    """Makes the model for some splits of a folder of pictograms."""
    return RulesModel({name: scene for split in splits for name, scene in read_scenes(folder, split).items()})
