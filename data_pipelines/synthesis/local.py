"""Models of `transformers` on this machine: vision-language models, and text models for questions without pictures."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any

from PIL import Image

from contextjax import images
from contextjax.types import UserError
from data_pipelines.synthesis.questions import Question, Reply


class LocalModel:
    """A model in `transformers`' layout (safetensors only): a folder or hub id. Decoding is greedy."""

    def __init__(self, name: str, *, answer_tokens: int = 800, side: int = 768):
        """Takes the name, the longest answer, and the longer side in pixels of pictures as the model sees them."""
        self.name = name
        self.settings: Mapping[str, Any] = {"answer_tokens": answer_tokens, "side": side}
        self._most, self._side = answer_tokens, side
        self._lock = threading.Lock()  # one generation at a time

    def answer(self, question: Question) -> Reply:
        """Returns the model's answer.

        Raises:
          UserError: transformers is missing, the model can't be read, or it sees no pictures and is shown one.
        """
        with self._lock:
            processor, model, sees_pictures = self._loaded
            if question.pictures and not sees_pictures:
                raise UserError(
                    f"{self.name} sees no pictures; give a vision-language model as --model, this as --writer."
                )
            text, tokens_in, tokens_out = self._generate(processor, model, question, sees_pictures)
        return Reply(question.key(self), self.name, question.prompt.id, text, "", tokens_in, tokens_out)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any, bool]:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(
                "--backend=transformers needs PyTorch and transformers; install them: pip install 'contextjax[torch]'."
            ) from error
        options = {"dtype": "auto", "use_safetensors": True}
        try:
            config = transformers.AutoConfig.from_pretrained(self.name)
            sees = hasattr(config, "vision_config")
            made = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
            model: Any = made.from_pretrained(self.name, **options)
            reads = transformers.AutoProcessor if sees else transformers.AutoTokenizer
            processor = reads.from_pretrained(self.name)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--model {self.name} can't be read ({reason}); expected transformers' layout.") from error
        return processor, model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), sees

    def _generate(self, processor: Any, model: Any, question: Question, sees: bool) -> tuple[str, int, int]:
        content: Any = [{"type": "image", "image": self._picture(p.data)} for p in question.pictures]
        content = [*content, {"type": "text", "text": question.text}] if sees else question.text
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        asked = inputs["input_ids"].shape[1]
        tokens = model.generate(**inputs, max_new_tokens=self._most, do_sample=False)[0, asked:]
        return processor.decode(tokens, skip_special_tokens=True).strip(), asked, len(tokens)

    def _picture(self, data: bytes) -> Image.Image:
        image = images.decode(data)
        image.thumbnail((self._side, self._side), Image.Resampling.LANCZOS)
        return image
