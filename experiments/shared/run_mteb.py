"""Runs tasks of MTEB on a system, and prints the main score of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import contextjax
from contextjax.evaluation.mteb_encoder import MtebEncoder, check_modalities
from contextjax.types import UserError, listed


def run_tasks(
    source: str, names: Sequence[str], target: Path, *, query: str = "", name: str = "", batch_size: int = 64
) -> None:
    """Runs tasks, writes their results as mteb does, and prints the main score of each split.

    Args:
      source: see `contextjax.load`.
      names: tasks, by mteb's names.
      target: the folder of the results; results of the same model that are there are kept.
      query: how composed queries are made, see System.with_query; "": as the system does it.
      name: see MtebEncoder.
      batch_size: rows that are encoded at a time.

    Raises:
      UserError: there is no such task, it is about sounds or videos, or its data can't be loaded.
    """
    import mteb

    tasks = []
    for task in dict.fromkeys(names):
        try:
            tasks.append(mteb.get_task(task))
        except KeyError as error:
            hint = str(error.args[0]).removeprefix("KeyError: ") if error.args else ""
            raise UserError(f"mteb has no task '{task}' ({hint}); give the name of one that it has.") from error
        check_modalities(tasks[-1].metadata)
    if not tasks:
        raise UserError("--tasks names no task; give names as mteb has them, with commas between them.")
    system = contextjax.load(source)
    encoder = MtebEncoder(system.with_query(query) if query else system, name=name)
    for task in tasks:
        try:
            task.load_data()
        except UserError:
            raise
        except Exception as error:  # the hub, the network and damaged files raise errors of any type
            raise UserError(
                f"The data of {task.metadata.name} can't be loaded from {task.metadata.dataset['path']} "
                f"({listed(str(error).strip().splitlines()[:1])}); check the network, or HF_TOKEN where it is gated."
            ) from error
        kept, options = mteb.ResultCache(cache_path=target), {"batch_size": batch_size, "show_progress_bar": False}
        (result,) = mteb.evaluate(
            encoder, task, cache=kept, co2_tracker=False, encode_kwargs=options, show_progress_bar=False
        ).task_results
        task.unload_data()
        for split, scores in result.scores.items():
            for score in scores:
                print(f"{result.task_name} {split} {score['hf_subset']}: {task.metadata.main_score} "
                      f"{100 * score['main_score']:.2f}", flush=True)  # fmt: skip
    print(f"results: {target / 'results'}")
