"""Lists published checkpoints that are read here: family, size, resolution, and where each licence was read.

python -m experiments.models [--family=clip]

Any other checkpoint of these families is read, too. Nothing is downloaded by this command.
"""

from absl import flags

from experiments.shared import cli

FAMILY = flags.DEFINE_string("family", "", "List one family alone, such as clip, blip or blip2.")


def main() -> None:
    """Prints a line for each checkpoint."""
    from contextjax.pretrained.known import KNOWN, of_family
    from contextjax.types import UserError

    rows = of_family(FAMILY.value)
    if not rows:
        families = dict.fromkeys(row.family for row in KNOWN)
        raise UserError(f"--family is '{FAMILY.value}'; expected one of {', '.join(families)}.")
    table = [("CHECKPOINT", "FAMILY", "SIZE", "TOWER", "PIXELS", "LICENCE", "READ AT")]
    for row in rows:
        size = row.resolution or "see its config"
        table.append((row.id, row.family, row.variant or "-", row.tower, f"{size}", row.licence, row.page))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    cli.run(main)
