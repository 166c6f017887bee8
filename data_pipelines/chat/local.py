"""Models of `transformers` on this machine: vision-language models, and text models for questions without pictures."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from contextjax import images
from contextjax.types import UserError
from data_pipelines.chat.endpoint import MAX_ODDS
from data_pipelines.chat.questions import Question, Reply


class LocalModel:
    """A model in `transformers`' layout (safetensors only): a folder or hub id. Decoding is greedy."""

    def __init__(self, name: str, *, answer_tokens: int = 800, side: int = 768, odds: int = 0):
        """Args:
          name: a folder or hub id.
          answer_tokens: the longest answer.
          side: the longer side in pixels of pictures as the model sees them.
          odds: the number of tokens at each place of an answer whose log-probabilities are kept.
        """  # fmt: skip
        self.name = name
        self.settings: Mapping[str, Any] = {"answer_tokens": answer_tokens, "side": side}
        if odds:
            self.settings |= {"odds": odds}
        self._most, self._side, self._odds = answer_tokens, side, odds
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
                    f"{self.name} sees no pictures; give a vision-language model as --model (synthesize takes a text "
                    "model as --writer)."
                )
            answer = self._generate(processor, model, question, sees_pictures)
        text, tokens_in, tokens_out, odds = answer
        return Reply(question.key(self), self.name, question.prompt.id, text, "", tokens_in, tokens_out, odds=odds)

    @property
    def parameters(self) -> int:
        """The number of the model's parameters; it is loaded."""
        return sum(values.numel() for values in self._loaded[1].parameters())

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any, bool]:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(
                "A model on this machine needs PyTorch and transformers; install them: pip install 'contextjax[torch]'."
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

    def _generate(self, processor: Any, model: Any, question: Question, sees: bool) -> tuple[str, int, int, str]:
        parts: list[Any] = [part for part in (question.instructions, *question.parts) if part]  # no system message:
        content: Any = [  # some models' templates have no place for one
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": self._picture(part.data)}
            for part in parts
        ]
        content = content if sees else question.text
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        asked = inputs["input_ids"].shape[1]
        options = {"output_logits": True, "return_dict_in_generate": True} if self._odds else {}
        made = model.generate(**inputs, max_new_tokens=self._most, do_sample=False, **options)
        tokens = (made.sequences if self._odds else made)[0, asked:]
        odds = self._read_odds(processor, tokens, made.logits) if self._odds else ""
        return processor.decode(tokens, skip_special_tokens=True).strip(), asked, len(tokens), odds

    def _read_odds(self, processor: Any, tokens: Any, logits: Any) -> str:
        """Returns Reply.odds of the tokens of an answer and the logits [1, vocabulary] at each of them."""
        odds = []
        for token, logit in zip(tokens[:MAX_ODDS], logits, strict=False):
            best = logit[0].float().log_softmax(-1).topk(min(self._odds, logit.shape[-1]))
            others: dict[str, float] = {}
            for id, p in zip(best.indices, best.values.tolist(), strict=True):  # several tokens may be one text
                text = processor.decode(id)
                others[text] = float(np.logaddexp(p, others[text])) if text in others else p
            odds.append([processor.decode(token), others])
        return json.dumps(odds)

    def _picture(self, data: bytes) -> Image.Image:
        image = images.decode(data)
        image.thumbnail((self._side, self._side), Image.Resampling.LANCZOS)
        return image
