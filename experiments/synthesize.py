"""Makes training triplets by models: pairs, descriptions, difference texts, filters (docs/guides/synthesis.md).

python -m experiments.synthesize --pictures=FOLDER --workdir=CLIP --target=DIR --backend=openai --model=NAME --dry_run
python -m experiments.synthesize --data=CIRR --target=DIR --backend=openai|transformers --model=NAME
python -m experiments.synthesize --data=data/pictograms/cirr --target=data/pictograms/synthetic --backend=rules

The same command continues where it stopped. With --cluster the nodes of a Ray cluster work (docs/guides/cluster.md).
"""

from experiments.shared import cli
from experiments.synthesis.config import define_flags, from_flags

define_flags()


def main() -> None:
    """Writes a set of triplets."""
    from experiments.synthesis.run import synthesize

    synthesize(from_flags())


if __name__ == "__main__":
    cli.run(main)
