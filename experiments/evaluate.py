"""Evaluates a run, or a published CLIP or BLIP as it is, on composed queries or candidate sets; submission files.

python -m experiments.evaluate --workdir=RUN [--split=unseen]
python -m experiments.evaluate --workdir=DIR --source=CLIP_OR_BLIP --data=FOLDER --protocol=NAME [--split=val]
python -m experiments.evaluate --workdir=RUN --data=CIRR --protocol=cirr --split=test1 --submission=DIR
python -m experiments.evaluate --check=FILE --data=CIRR --protocol=cirr --split=test1

Protocols: cirr (cirr_r, cirr_ext), fashion_iq_original, fashion_iq_val, circo, genecis, lasco, hotel_cir, manifest;
imagecode, mmvp (data_pipelines/protocols.py says how each scores).
"""

from pathlib import Path

from absl import flags

from contextjax.files import local_path, path_of, write_whole
from experiments.shared import cli

WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of a training run; evaluation.json goes there.")
SOURCE = flags.DEFINE_string("source", "", "What to evaluate: a folder or hub id of CLIP or BLIP; default: the run.")
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split, or val.")
DATA = flags.DEFINE_string("data", "", "The data set's folder; default: the config's.")
PROTOCOL = flags.DEFINE_string(
    "protocol", "", "The benchmark's protocol, see above; default: that of the config's data."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "",
    "best, newest or a step; default: the best where the run's training.best names one, else the newest.",
)
BASELINES = flags.DEFINE_bool("baselines", True, "Score image only, text only and their sum (or itc and itm) too.")
REWORDINGS = flags.DEFINE_bool("rewordings", False, "Query by the mean of a text and its rewordings (Fashion-IQ).")
PROPOSITIONS = flags.DEFINE_string("propositions", "", "Candidate sets: a file {description: [short sentences]}.")
SHARE = flags.DEFINE_float("share", 0.5, "With --propositions: the share of the whole text in a score, 0 to 1.")
SUBMISSION = flags.DEFINE_string("submission", "", "A folder for the files that the benchmark's leaderboard takes.")
CHECK = flags.DEFINE_string("check", "", "A submission file to check instead, by --protocol, --data and --split.")
PROCESS_TIMEOUT = cli.define_process_timeout()


def main() -> None:
    """System and data -> ranks -> evaluation.json and a table; or submission files."""
    if CHECK.value:
        return check(local_path(CHECK.value), protocol=PROTOCOL.value, folder=DATA.value, split=SPLIT.value)
    evaluate(
        path_of(cli.required(WORKDIR)), source=SOURCE.value, split=SPLIT.value, folder=DATA.value,
        protocol=PROTOCOL.value,
        baselines=BASELINES.value, rewordings=REWORDINGS.value, propositions=PROPOSITIONS.value, share=SHARE.value,
        submission=SUBMISSION.value, checkpoint=CHECKPOINT.value,
    )  # fmt: skip
    return None


def check(file: Path, *, protocol: str, folder: str, split: str | None) -> None:
    """Checks a submission file, or tells all that is wrong with it."""
    from contextjax.types import UserError
    from data_pipelines import protocols
    from experiments.shared import submit

    if not (folder and protocol):
        raise UserError("--data or --protocol is missing; --check needs both, as --data=FOLDER --protocol=cirr.")
    count = submit.check(file, protocols.named(protocol), folder, split)
    print(f"{file} keeps all rules of {protocol}, {split}: {count} queries.")


def evaluate(workdir: Path, *, source: str = "", split: str | None = None, folder: str = "", protocol: str = "",
             baselines: bool = True, rewordings: bool = False, propositions: str = "", share: float = 0.5,
             submission: str = "", checkpoint: str = "") -> dict:  # fmt: skip
    """Evaluates and returns what it writes: evaluation.json, for other splits and data evaluation.*.json.

    Of a split whose targets are secret only the submission is made.
    """
    import json

    import contextjax
    from contextjax.sharding import first_process_first, is_first_process
    from contextjax.types import UserError
    from experiments.shared import assembly, scoring, submit

    if source and not (folder and protocol):
        raise UserError("--data or --protocol is missing; a --source needs both, as --data=FOLDER --protocol=cirr.")
    system = contextjax.load(source or workdir, checkpoint=checkpoint)
    with first_process_first():
        task = scoring.make_task(
            system, None if source else assembly.read_config(workdir), protocol=protocol, folder=folder, split=split,
            rewordings=rewordings, propositions=propositions, share=share,
        )  # fmt: skip
    if task.is_secret and not submission:
        raise UserError(
            f"{task.protocol.name}, {task.split}: its targets are secret; give --submission=DIR for the files that its "
            "leaderboard scores, or a --split that publishes them."
        )
    sentences = {"propositions": task.propositions, "share": share} if propositions else {}
    for part, data in task.parts.items() if submission and is_first_process() else ():
        for path in submit.write(system, task.protocol, data, Path(submission) / part, **sentences):
            print(f"{path} is written and keeps all rules of {task.protocol.name}, {task.split}.")
    texts_cut = scoring.count_cut(system, task.texts())
    if submission and task.is_secret:
        print(
            f"{task.protocol.name}, {task.split}: targets are secret, so there are no metrics; submit what is written."
        )
        return {}
    result = {"protocol": task.protocol.name, "split": task.split}
    result |= assembly.score(system, task.protocol, task.parts, baselines=baselines, **sentences)
    result |= {"texts_cut": texts_cut, **task.facts}
    result["config_hash"], _, step = system.fingerprint.rpartition("-")
    result["step"] = int(step)
    if is_first_process():
        write_whole(workdir / task.file, json.dumps(result, indent=2) + "\n")
    scoring.print_tables(result)
    return result


if __name__ == "__main__":
    cli.run(main)
