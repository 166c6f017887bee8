"""Converts weights: CLIP and BLIP to Hugging Face's layout, a trained run to one folder of safetensors.

python -m experiments.convert --source=FOLDER_OR_HUB_ID --target=DIR [--format=hf|contextjax] [--dtype=bfloat16]
                              [--push=OWNER/NAME [--private]]

--push uploads DIR, with its model card, to a repository of the Hugging Face hub (or of the server that HF_ENDPOINT
names), as the owner of HF_TOKEN or of the login of `hf auth login`. Without the network DIR is still written whole.
"""

from pathlib import Path

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

SOURCE = define_path(
    "source",
    Place.SOURCE,
    "A run's workdir, a folder in Hugging Face's or OpenCLIP's layout (or of the published ConText-CIR), a hub id, or "
    "(with --allow_pickle) a .pth file or a folder with pytorch_model.bin.",
)
TARGET = define_path("target", Place.NEW_FOLDER, "The folder to write.")
FORMAT = flags.DEFINE_enum(
    "format", None, ["hf", "contextjax"], "Default: hf for CLIP and BLIP, contextjax for a trained run."
)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the written weights.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Resize the position embeddings to this resolution.")
TOKENIZER = define_path("tokenizer", Place.FOLDER, "A folder with the tokenizer, where the source has none.")
ALLOW_PICKLE = flags.DEFINE_bool("allow_pickle", False, "Read a pickle, in a process of its own: only if you trust it.")

PUSH = flags.DEFINE_string("push", None, "A repository of the hub, owner/name, that DIR is uploaded to; made if new.")
PRIVATE = flags.DEFINE_bool("private", False, "Make the repository of --push private, where it is new.")


def main() -> None:
    """Reads the source and writes the target; a forward pass compares both where PyTorch is installed."""
    from contextjax.types import UserError
    from experiments.shared.hub import Repository
    from experiments.shared.weights import convert

    if PRIVATE.value and PUSH.value is None:
        raise UserError("--private is about the repository of --push; give --push=OWNER/NAME, or leave it out.")
    repository = None if PUSH.value is None else Repository(PUSH.value, private=PRIVATE.value)
    convert(
        cli.required(SOURCE), Path(cli.required(TARGET)), layout=FORMAT.value, dtype=DTYPE.value,
        image_size=IMAGE_SIZE.value, tokenizer=TOKENIZER.value, from_pickle=ALLOW_PICKLE.value,
    )  # fmt: skip
    if repository:
        repository.push(Path(cli.required(TARGET)))


if __name__ == "__main__":
    cli.run(main)
