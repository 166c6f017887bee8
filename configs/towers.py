"""The published CLIPs and SigLIPs that recipes start from, by the names of their sizes (`contextjax.variants`)."""

CLIPS = {
    "B32": "openai/clip-vit-base-patch32",
    "B16": "openai/clip-vit-base-patch16",
    "L14": "openai/clip-vit-large-patch14",
    "H14": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
}
SIGLIPS = {
    "SigLIP-B16": "google/siglip-base-patch16-224",
    "SigLIP-L16": "google/siglip-large-patch16-256",
    "SigLIP-So400m14": "google/siglip-so400m-patch14-224",
    "SigLIP2-B16": "google/siglip2-base-patch16-224",
    "SigLIP2-L16": "google/siglip2-large-patch16-256",
    "SigLIP2-So400m14": "google/siglip2-so400m-patch14-224",
}
TOWERS = {**CLIPS, **SIGLIPS}
TINY_SIGLIP = "tiny_siglip"  # `shrink` of a SigLIP
LENGTHS = {"SigLIP-So400m14": 16}  # tokens of a SigLIP's text; of the others 64


def start_from(config, size: str) -> None:
    """Starts a recipe from a published model of TOWERS; with TINY_SIGLIP, it has the towers that `shrink` shrinks."""
    if size == TINY_SIGLIP:
        config.model.variant = "SigLIP-S16"
        return
    config.model.variant, config.model.pretrained = size, TOWERS[size]
    if size in SIGLIPS:
        for key in ("text_length", "caption_length"):
            if key in config.data:
                config.data[key] = min(config.data[key], LENGTHS.get(size, 64))
