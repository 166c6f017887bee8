"""Evaluates a run, or a published CLIP or BLIP as it is, on composed queries or candidate sets; submission files.

python -m experiments.evaluate --workdir=RUN [--split=unseen]
python -m experiments.evaluate --workdir=DIR --source=CLIP_OR_BLIP --data=FOLDER --protocol=NAME [--split=val]
python -m experiments.evaluate --workdir=RUN --data=CIRR --protocol=cirr --split=test1 --submission=DIR
python -m experiments.evaluate --check=FILE --data=CIRR --protocol=cirr --split=test1
python -m experiments.evaluate --judge=openai --model=NAME --workdir=DIR --data=FOLDER --protocol=NAME [--rerank=20]

Protocols: cirr (cirr_r, cirr_ext), fashion_iq_original, fashion_iq_val, circo, genecis, lasco, hotel_cir, manifest;
captions, karpathy (captions and pictures, both ways), cirr_captions (pictures by their captions); imagecode, mmvp
(data_pipelines/protocols.py says how each scores).
"""

from typing import Any

from absl import flags

from contextjax.files import local_path, path_of
from experiments.shared import cli, judge_settings
from experiments.shared.paths import Place, define_path

WORKDIR = define_path("workdir", Place.NEW_FOLDER, "The workdir of a training run; evaluation.json is written there.")
SOURCE = define_path(
    "source", Place.SOURCE, "What to evaluate: a folder or hub id of CLIP or BLIP; default: the run.", default=""
)
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split, or val.")
DATA = define_path("data", Place.FOLDER, "The data set's folder; default: the config's.", default="")
PROTOCOL = flags.DEFINE_string("protocol", "", "The benchmark's, see above; default: that of the config's data.")
QUERY = flags.DEFINE_string(
    "query", "", "Composed queries, MODE or MODE:TEMPLATE, as 'raw_sum:Find a picture that also {}'; default: its own."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "best, newest or a step; default: the best if the run's training.best names one, else the newest."
)
BASELINES = flags.DEFINE_bool("baselines", True, "Score image only, text only and their sum (or itc and itm) too.")
REWORDINGS = flags.DEFINE_bool("rewordings", False, "Query by the mean of a text and its rewordings (Fashion-IQ).")
PROPOSITIONS = define_path("propositions", Place.PICTURES, "A file {description: [short sentences]}.", default="")
SHARE = flags.DEFINE_float("share", 0.5, "With --propositions: the share of the whole text, 0 to 1.", 0.0, 1.0)
SUBMISSION = define_path("submission", Place.NEW_FOLDER, "A folder for the files of the leaderboard.", default="")
PREPARED = cli.define_prepared()
CHECK = define_path("check", Place.FILE, "A submission file to check, by --protocol, --data and --split.", default="")
PROCESS_TIMEOUT = cli.define_process_timeout()
judge_settings.define_flags()
KEEPS_MEMORY = True


def main() -> None:
    """Evaluates and writes evaluation.json, or submission files; or checks one of these."""
    if CHECK.value:
        return check()
    return cli.distributed(evaluate, timeout=PROCESS_TIMEOUT.value)


def evaluate() -> None:
    """Evaluates what the flags name, by itself or as one of several processes."""
    from experiments.shared.run_evaluation import evaluate_run

    choice: dict[str, Any] = {flag.name: flag.value for flag in (SPLIT, PROTOCOL, PREPARED, CHECKPOINT)}
    choice |= {"workdir": path_of(cli.required(WORKDIR)), "source": SOURCE.value, "folder": DATA.value}
    more: dict[str, Any] = {f.name: f.value for f in (BASELINES, REWORDINGS, PROPOSITIONS, SHARE, SUBMISSION, QUERY)}
    if settings := judge_settings.from_flags():
        from experiments.shared.run_judge import judge_run

        judge_settings.check_alone(more)
        judge_run(settings, **choice)
    else:
        evaluate_run(**choice, **more)


def check() -> None:
    """Checks a submission file, without JAX, and prints how many queries it answers."""
    from experiments.shared.leaderboard_files import check_file

    file = local_path(CHECK.value)
    count = check_file(file, PROTOCOL.value, DATA.value, SPLIT.value)
    print(f"{file} keeps all rules of {PROTOCOL.value}, {SPLIT.value}: {count} queries.")


if __name__ == "__main__":
    cli.run(main)
