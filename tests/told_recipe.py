"""The tiny recipe of several processes, the second of which is asked to end (SIGTERM) before its third step.

It is so where TOLD is set. For tests of commands that schedulers start: what is launched has to be the real command.
"""

import os
import signal

from configs.pictograms import get_config as pictograms

SETTINGS = {
    "mesh": "fsdp:-1", "data.modifications": 2, "data.text_length": 32, "data.phrases_per_text": 6.0,
    "loss.lead_steps": 0, "optimizer.name": "adamw", "training.steps": 6, "training.checkpoint_every": 3,
}  # fmt: skip


def get_config(argument: str = ""):
    """Returns the recipe."""
    config = pictograms("tiny")
    config.update_from_flattened_dict(SETTINGS)
    if "TOLD" in os.environ:
        end_before_the_third_step()
    return config


def end_before_the_third_step() -> None:
    """Changes how batches are placed: the second process ends itself at the third."""
    import jax

    from contextjax.training import loop

    place, calls = loop.place_batch, []

    def placed(batch, **options):
        calls.append(1)
        if len(calls) == 3 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return place(batch, **options)

    loop.place_batch = placed
