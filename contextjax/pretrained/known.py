"""Published checkpoints that `load` and `convert` read, and the page or file that each licence was read from.

Pages were read on 2026-11-29, in stored copies. A licence that no page was read of is "not read". Where another
project's list of models names it, the page is that list; that of OpenAI's CLIPs is the licence of the repository that
publishes them. The data that a checkpoint was trained on have terms of their own.
"""

from __future__ import annotations

from typing import NamedTuple

NOT_READ = "not read"
HUB = "https://huggingface.co/"


class Known(NamedTuple):
    """A published checkpoint.

    Attributes:
      id: its hub id; or the address of what is no repository of the hub.
      family: a key of variants.FAMILIES.
      variant: a key of variants.VARIANTS with its sizes; "" where there is none, and its config has them.
      tower: its picture tower, in the usual short form.
      resolution: the side of its pictures in pixels; 0 where no page that was read says it: see its config.json.
      licence: as the page has it; NOT_READ.
      page: where the licence was read, or stands.
    """

    id: str
    family: str
    variant: str
    tower: str
    resolution: int
    licence: str
    page: str


_OPENAI = "https://github.com/openai/CLIP/blob/main/LICENSE"
_MTEB = "https://github.com/embeddings-benchmark/mteb/blob/main/mteb/models/model_implementations/openclip_models.py"
_SIGLIP = "https://github.com/embeddings-benchmark/mteb/blob/main/mteb/models/model_implementations/siglip_models.py"

KNOWN: tuple[Known, ...] = (
    Known("openai/clip-vit-base-patch32", "clip", "B32", "ViT-B/32", 224, "mit", _OPENAI),
    Known("openai/clip-vit-base-patch16", "clip", "B16", "ViT-B/16", 224, "mit", _OPENAI),
    Known("openai/clip-vit-large-patch14", "clip", "L14", "ViT-L/14", 224, "mit", _OPENAI),
    Known("openai/clip-vit-large-patch14-336", "clip", "L14-336", "ViT-L/14", 336, "mit", _OPENAI),
    Known("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "clip", "B32", "ViT-B/32", 224, "mit", _MTEB),
    Known("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "clip", "L14", "ViT-L/14", 224, "mit", _MTEB),
    Known("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "clip", "H14", "ViT-H/14", 224, "mit", _MTEB),
    Known("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "clip", "B16", "ViT-B/16", 224, NOT_READ,
          f"{HUB}laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    Known("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "clip", "B32", "ViT-B/32", 224, "mit", _MTEB),
    Known("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "clip", "B16", "ViT-B/16", 224, "mit",
          f"{HUB}laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K/blob/d110532e8d4ff91c574ee60a342323f28468b287/vocab.json"),
    Known("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "clip", "L14", "ViT-L/14", 224, "mit",
          f"{HUB}laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K/blob/refs%2Fpr%2F8/merges.txt"),
    Known("google/siglip-base-patch16-224", "clip", "SigLIP-B16", "ViT-B/16", 224, "apache-2.0",
          f"{HUB}google/siglip-base-patch16-224/commits/5b1f0cc959a26b8e3bc3e6967d547827c05e5026"),
    Known("google/siglip-large-patch16-256", "clip", "SigLIP-L16", "ViT-L/16", 256, "apache-2.0",
          f"{HUB}google/siglip-large-patch16-256/blob/41cad8010a1e3c96a178244d6fedbfa337d8260f/tokenizer.json"),
    Known("google/siglip-so400m-patch14-224", "clip", "SigLIP-So400m14", "So400m/14", 224, "apache-2.0", _SIGLIP),
    Known("google/siglip-so400m-patch14-384", "clip", "", "So400m/14", 384, "apache-2.0",
          f"{HUB}google/siglip-so400m-patch14-384/blob/main/tokenizer.json"),
    Known("google/siglip2-base-patch16-224", "clip", "SigLIP2-B16", "ViT-B/16", 224, "apache-2.0", _SIGLIP),
    Known("google/siglip2-large-patch16-256", "clip", "SigLIP2-L16", "ViT-L/16", 256, "apache-2.0", _SIGLIP),
    Known("google/siglip2-so400m-patch14-224", "clip", "SigLIP2-So400m14", "So400m/14", 224, "apache-2.0", _SIGLIP),
    Known("Salesforce/blip-itm-base-coco", "blip", "BLIP-B", "ViT-B/16", 384, "bsd-3-clause",
          f"{HUB}Salesforce/blip-itm-base-coco/commits/main/config.json"),
    Known("Salesforce/blip-itm-base-flickr", "blip", "BLIP-B", "ViT-B/16", 0, "bsd-3-clause",
          f"{HUB}Salesforce/blip-itm-base-flickr/blob/main/tokenizer.json"),
    Known("Salesforce/blip-itm-large-coco", "blip", "", "ViT-L/16", 384, "bsd-3-clause",
          f"{HUB}Salesforce/blip-itm-large-coco/blob/main/tokenizer.json"),
    Known("Salesforce/blip-itm-large-flickr", "blip", "", "ViT-L/16", 0, "bsd-3-clause",
          f"{HUB}Salesforce/blip-itm-large-flickr/tree/main"),
    Known("Salesforce/blip2-itm-vit-g", "blip2", "BLIP2-G", "ViT-g/14", 0, "mit",
          f"{HUB}Salesforce/blip2-itm-vit-g/commits/main/model.safetensors"),
    Known("Salesforce/blip2-itm-vit-g-coco", "blip2", "BLIP2-G", "ViT-g/14", 0, NOT_READ,
          f"{HUB}Salesforce/blip2-itm-vit-g-coco"),
    Known("https://github.com/ABaldrati/CLIP4Cir", "context_cir", "", "Combiner, on a ViT", 0, "mit",
          "https://github.com/ABaldrati/CLIP4Cir/blob/master/LICENSE"),
)  # fmt: skip


def of_family(family: str) -> tuple[Known, ...]:
    """Returns the checkpoints of a family, all of them for ""."""
    return tuple(row for row in KNOWN if family in ("", row.family))
