"""Exports a trained run: parameters, portable programs, and a certificate that they do what the live model does.

python -m experiments.export --workdir=RUN --target=DIR [--format=safetensors,stablehlo,onnx] [--dtype=float16]
"""

from absl import flags

from contextjax.files import local_path
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path(
    "workdir",
    Place.SOURCE,
    "The workdir of a training run, or a folder or hub id of CLIP or BLIP (without safetensors).",
)
TARGET = define_path("target", Place.NEW_FOLDER, "The folder to write; it must not be there.")
FORMAT = flags.DEFINE_list(
    "format", ["safetensors", "stablehlo"],
    "safetensors: for contextjax.load and --config.model.start; stablehlo: programs for cpu, cuda and tpu, which need "
    "JAX alone; onnx: for onnxruntime, without JAX. Where there are programs, load runs them.",
)  # fmt: skip
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "float16", "bfloat16", "int8"],
    "Of parameters and computation; onnx has no bfloat16, and int8 (quantised products) is onnx's alone.",
)  # fmt: skip
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "best, newest or a step; default: the best where the run has a rule of what is best, else newest."
)


def main() -> None:
    """Loads the run and writes its parameters, programs, certificate and model card."""
    from experiments.shared.weights import export

    source, target = cli.required(WORKDIR), local_path(cli.required(TARGET))
    export(source, target, formats=FORMAT.value, dtype=DTYPE.value, checkpoint=CHECKPOINT.value)


if __name__ == "__main__":
    cli.run(main)
