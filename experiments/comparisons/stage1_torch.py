"""PyTorch's side of stage 1: the published recipe written plainly on the BLIP modules of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers.models.blip.modeling_blip_text import BlipTextLayer

from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIPConfig
from contextjax.models.masking import NOISE
from contextjax.pretrained.blip import hf_config_json
from experiments.comparisons import blip, pytorch


def write_blip(folder: Path, config: BLIPConfig, *, seed: int = 0) -> None:
    """Writes a BLIP checkpoint of random weights, as `transformers` initialises them."""
    pytorch.quiet()
    torch.manual_seed(seed)
    described = hf_config_json(config)
    described["vision_config"]["initializer_range"] = 0.02  # the default, 1e-10, makes all image tokens zero
    transformers.BlipForImageTextRetrieval(transformers.BlipConfig(**described)).save_pretrained(folder)


class TorchStep:
    """PyTorch's training step: the model, its optimizer and a batch."""

    def __init__(self, folder: str, size: str, batch: int, threads: int):
        """Reads the weights."""
        torch.set_num_threads(threads)
        config, section = blip.stage1_config(size), blip.stage1_optimizer()
        self.model, self._batch = make_model(Path(folder), config), _tensors(config, size, batch)
        arguments = {"learning_rate": section.learning_rate, "weight_decay": section.weight_decay}
        arguments |= {"b1": section.beta1, "b2": section.beta2, "eps": section.epsilon}
        self._optimizer = pytorch.adamw([x for x in self.model.parameters() if x.requires_grad], arguments)

    def step(self) -> dict[str, float]:
        """Runs one update and returns its losses."""
        losses = self.backward()
        self._update()
        return losses

    def checked_step(self) -> dict[str, float]:
        """Runs a step and returns the norm of its gradient as well, which the published step does not compute."""
        losses = self.backward()
        # In float64: PyTorch's own norm of a matrix of this size is wrong by 4e-5 on a CPU.
        squares = [float((x.grad.double() ** 2).sum()) for x in self.model.parameters() if x.grad is not None]
        losses["grad_norm"] = sum(squares) ** 0.5
        self._update()
        return losses

    def backward(self) -> dict[str, float]:
        """Returns the losses and leaves their gradients with the parameters."""
        matching, masking, similarity = self.model(**self._batch)
        loss = matching + masking
        loss.backward()
        metrics = {"loss": loss, "matching": matching, "masking": masking, "similarity": similarity}
        return {name: x.item() for name, x in metrics.items()}

    def cost(self) -> dict[str, float]:
        """Returns the FLOPs of a step's matrix products, and the most bytes of tensors alive beyond those before it."""
        return pytorch.cost(self.step)

    def _update(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)  # at the end: see pytorch.update


class Stage1(nn.Module):
    """ContextBLIP as stage 1 trains it, under the names of `blip.torch_names`."""

    def __init__(self, folder: Path, config: ContextBLIPConfig):
        super().__init__()
        vision, width = config.blip.vision, config.blip.vision.width
        self.config, self.vision, self.width = config, vision, width
        self.patches = (vision.image_size // vision.patch_size) ** 2
        reduced, taps = width // config.adapter_reduction, vision.taps
        layer = transformers.BlipTextConfig(
            hidden_size=width, encoder_hidden_size=width, num_attention_heads=config.decoder_heads,
            intermediate_size=4 * width, layer_norm_eps=1e-12, is_decoder=True,
        )  # fmt: skip
        self.blip = transformers.BlipForImageTextRetrieval.from_pretrained(folder).requires_grad_(False)
        self.adapter_down = nn.ModuleList(nn.Linear(width, reduced, bias=False) for _ in taps)
        self.adapter_up = nn.Linear(len(taps) * reduced, width, bias=False)
        self.mask_embedding, self.positions = nn.Parameter(torch.zeros(width)), nn.Embedding(1 + self.patches, width)
        self.text_down, self.text_up = (
            nn.Linear(a, b, bias=False) for a, b in ((width, width // 2), (width // 2, width))
        )
        self.decoder = nn.ModuleList(BlipTextLayer(layer, i) for i in range(config.decoder_layers))
        self.head = nn.Linear(width, 3 * vision.patch_size**2)

    def encode(self, x: Any) -> list[Any]:
        """Returns the tapped states of the frozen tower, each after its final LayerNorm."""
        tapped = []
        for number, block in enumerate(self.blip.vision_model.encoder.layers, start=1):
            x = block(x)
            if number in self.vision.taps:
                tapped.append(self.blip.vision_model.post_layernorm(x))
        return tapped

    def adapt(self, states: list[Any]) -> Any:
        """Returns the last tapped state plus the adapter's reading of all of them."""
        down = [F.relu(linear(x)) for linear, x in zip(self.adapter_down, states, strict=True)]
        return states[-1] + F.relu(self.adapter_up(torch.cat(down, -1)))

    def forward(
        self, pixels: Any, ids: Any, mask: Any, negative_image: Any, negative_text: Any, position: Any, noise: Any
    ) -> tuple[Any, Any, Any]:
        """Returns matching and masking loss, and the mean of the cosines that negatives are drawn from."""
        blip, text = self.blip, self.blip.text_encoder
        with torch.no_grad():
            embedded = blip.vision_model.embeddings(pixels)
            states = self.encode(embedded)
            image = F.normalize(blip.vision_proj(states[-1][:, 0]), dim=-1)
            alone = text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
            similarity = (F.normalize(blip.text_proj(alone), dim=-1) @ image.T).mean()
        tokens, ids = self.adapt(states), ids.clone()
        ids[:, 0] = self.config.fused_token
        positive = text(input_ids=ids, attention_mask=mask, encoder_hidden_states=tokens, output_attentions=True)
        negative = text(
            input_ids=torch.cat([ids, ids[negative_text]]),
            attention_mask=torch.cat([mask, mask[negative_text]]),
            encoder_hidden_states=torch.cat([tokens[negative_image], tokens]),
        )
        fused = torch.cat([positive.last_hidden_state[:, 0], negative.last_hidden_state[:, 0]])
        match = (torch.arange(len(fused)) < len(ids)).long()
        matching = F.cross_entropy(blip.itm_head(fused), match)
        with torch.no_grad():
            read: Any = sum(x.mean(1) for x in positive.cross_attentions) / len(positive.cross_attentions)
            read = read[torch.arange(len(ids)), position, 1:]
            scores = read / read.norm(dim=-1, keepdim=True) + NOISE * noise
            count = round(self.config.mask_rate * self.patches)
            masked, visible = scores.argsort(dim=-1, descending=True).split([count, self.patches - count], dim=-1)
            shown = torch.cat([torch.zeros_like(visible[:, :1]), 1 + visible], dim=1)
            states = self.encode(embedded.gather(1, shown[..., None].expand(-1, -1, self.width)))
        guessed = self.reconstruct(self.adapt(states), masked, visible, positive.last_hidden_state, mask)
        size = self.vision.patch_size
        true = pixels.unfold(2, size, size).unfold(3, size, size)
        true = true.permute(0, 2, 3, 4, 5, 1).reshape(len(ids), self.patches, -1)  # row, column, channel
        true = true.gather(1, masked[..., None].expand(-1, -1, true.shape[-1]))
        return matching, F.mse_loss(guessed, true), similarity

    def reconstruct(self, tokens: Any, masked: Any, visible: Any, text: Any, mask: Any) -> Any:
        """Returns the pixels of the masked patches."""
        slots = self.mask_embedding + self.positions(masked)
        raster = torch.cat([visible, masked], 1).argsort(1) + 1
        raster = torch.cat([torch.zeros_like(raster[:, :1]), raster], 1)
        x = torch.cat([tokens, slots], 1).gather(1, raster[..., None].expand(-1, -1, self.width))
        text = text + F.relu(self.text_up(F.relu(self.text_down(text))))
        unseen = (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min
        block: Any
        for block in self.decoder:
            x, _ = block.attention(x)
            # By hand: BlipTextLayer drops the mask of what it reads (transformers 5.23).
            reading = {"encoder_hidden_states": text, "encoder_attention_mask": unseen}
            x = block.crossattention.output(block.crossattention.self(x, **reading)[0], x)
            x = block.feed_forward_chunk(x)
        return self.head(x.gather(1, 1 + masked[..., None].expand(-1, -1, self.width)))


def make_model(folder: Path, config: ContextBLIPConfig) -> Any:
    """Returns the module with the weights of `stage1.write_weights`."""
    pytorch.quiet()
    model = Stage1(folder, config).eval()
    missing, unexpected = model.load_state_dict(load_file(folder / blip.TRAINED), strict=False)
    assert not unexpected and all(name.startswith("blip.") for name in missing), (missing, unexpected)
    return model


def _tensors(config: ContextBLIPConfig, size: str, batch: int) -> dict[str, Any]:
    """The batch as PyTorch's model takes it."""
    captions, draws = blip.make_stage1_batch(size, batch)
    whole = {"ids": captions.texts.ids, "mask": captions.texts.mask}
    whole |= {name: getattr(draws, name) for name in ("negative_image", "negative_text", "position")}
    tensors = {name: torch.from_numpy(np.asarray(x, np.int64)) for name, x in whole.items()}
    pixels = pytorch.pixels(captions.images, config.blip.vision)
    return {"pixels": pixels, "noise": torch.from_numpy(draws.noise), **tensors}
