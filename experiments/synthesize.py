"""Makes training triplets by models: pairs, descriptions, difference texts, filters (docs/guides/synthesis.md).

python -m experiments.synthesize --pictures=FOLDER --workdir=CLIP --target=DIR --backend=openai --model=NAME --dry_run
python -m experiments.synthesize --data=CIRR --target=DIR --backend=openai|transformers --model=NAME
python -m experiments.synthesize --data=data/pictograms/cirr --target=data/pictograms/synthetic --backend=rules

The same command continues where it stopped. What stands after a bare "--" are Apache Beam's options (--runner=beam).
"""

from experiments.shared import cli
from experiments.synthesis.config import define_flags, from_flags

TAKES_ARGUMENTS = True  # those of Apache Beam
define_flags()


def main(beam_options: list[str]) -> None:
    """Writes a set of triplets."""
    from experiments.synthesis.run import synthesize

    synthesize(from_flags(), beam_options)


if __name__ == "__main__":
    cli.run(main)
