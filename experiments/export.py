"""Exports a trained run: parameters, portable programs, and a certificate that they do what the live model does.

python -m experiments.export --workdir=RUN --target=DIR [--format=safetensors,stablehlo,onnx] [--dtype=bfloat16]
"""

import json
from pathlib import Path

from absl import flags

from contextjax.files import local_path, path_of
from experiments import cli

WORKDIR = flags.DEFINE_string(
    "workdir", None, "The workdir of a training run, or a folder or hub id of CLIP or BLIP (without safetensors)."
)
TARGET = flags.DEFINE_string("target", None, "The folder to write; it must not be there.")
FORMAT = flags.DEFINE_list(
    "format", ["safetensors", "stablehlo"],
    "safetensors: for contextjax.load and --config.model.start; stablehlo: programs for cpu, cuda and tpu, which need "
    "JAX alone; onnx: for onnxruntime, without JAX. Where there are programs, load runs them.",
)  # fmt: skip
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of parameters and computation.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "best, newest or a step; default: the best where the run has a rule of what is best, else newest."
)


def main() -> None:
    """Run -> live system -> programs, certificate, card."""
    source, target = cli.required(WORKDIR), local_path(cli.required(TARGET))
    export(source, target, formats=FORMAT.value, dtype=DTYPE.value, checkpoint=CHECKPOINT.value)


def export(source: str, target: Path, *, formats: list[str], dtype: str = "float32", checkpoint: str = "") -> None:
    """Writes an export of a run, or of a CLIP or BLIP, and prints what is in it."""
    import contextjax
    from contextjax.export.folder import check_formats
    from contextjax.export.write import check_target, write_export
    from contextjax.pretrained.tensors import read_json
    from contextjax.types import UserError

    folder, chosen = path_of(source), check_formats(formats)
    check_target(target)
    if (folder / "export.json").exists():
        raise UserError(f"{source} is an export itself; give the --workdir of the run it was made of.")
    system = contextjax.load(source, checkpoint=checkpoint)
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    own, evaluation = config if "model" in config else None, None
    if own and (folder / "evaluation.json").exists():
        found = read_json(folder / "evaluation.json")
        if f"{found.get('config_hash')}-{found.get('step')}" == system.fingerprint:
            evaluation = found
        else:
            print(f"{source}/evaluation.json is of another checkpoint; the card goes without metrics.")
    write_export(system, target, formats=chosen, dtype=dtype, config=own, evaluation=evaluation)
    _report(target)


def _report(target: Path) -> None:
    sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(target.iterdir())}
    print(f"wrote {target}: " + ", ".join(f"{name} ({size:.2f} MB)" for name, size in sizes.items()))
    if (target / "parity.json").exists():
        parity = json.loads((target / "parity.json").read_text(encoding="utf-8"))
        for form, programs in parity["largest_difference"].items():
            worst = ", ".join(f"{name} {max(batches.values()):.1e}" for name, batches in programs.items())
            print(f"largest difference from the live model, {form}: {worst} (at most {parity['tolerance']:g})")


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
