"""Samples: what a model writes after the same prompts, evaluation after evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from marco_jax.data.readers import read_records
from marco_jax.data.record_errors import RecordErrors, check_text
from marco_jax.decoding.engine import Engine
from marco_jax.evaluation.chat_prompts import Chat, text_requests
from marco_jax.model.parameters import Params
from marco_jax.runtime.progress import Progress

# One sentence in ten languages, up to where its reason begins, so that texts can be compared.
BUILTIN_PROMPTS = (
    ("en", "Water is important for all living things because"),
    ("zh", "水对所有生物都很重要，因为"),
    ("ar", "الماء مهم لجميع الكائنات الحية لأن"),
    ("es", "El agua es importante para todos los seres vivos porque"),
    ("ru", "Вода важна для всех живых существ, потому что"),
    ("hi", "पानी सभी जीवों के लिए महत्वपूर्ण है क्योंकि"),
    ("bn", "পানি সব জীবের জন্য গুরুত্বপূর্ণ কারণ"),
    ("kk", "Су барлық тірі ағзалар үшін маңызды, өйткені"),
    ("ne", "पानी सबै जीवहरूका लागि महत्त्वपूर्ण छ किनभने"),
    ("ur", "پانی تمام جانداروں کے لیے اہم ہے کیونکہ"),
)


def sample_prompts(file: str, count: int, languages: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The prompts of a run, each with the code of its language.

    Args:
        file: a JSONL file of {"language", "prompt"}, local or in an object store; "" for the
            built-in prompts.
        count: most prompts; 0: none, and the file is not read.
        languages: codes of the corpus. Built-in prompts in other languages are left out, unless
            the corpus has none of their languages.

    Raises:
        OSError: the file cannot be read.
        ValueError: one of its lines has no language or no prompt, or it has no lines.
    """
    if not count:
        return []
    if file:
        return _read_prompts(file)[:count]
    known = {*languages}
    own = [one for one in BUILTIN_PROMPTS if one[0] in known]
    return (own or list(BUILTIN_PROMPTS))[:count]


def _read_prompts(file: str) -> list[tuple[str, str]]:
    errors, found = RecordErrors(remedy='write {"language": "en", "prompt": "..."}'), []
    for place, record in read_records(file, "jsonl", errors=errors):
        language, prompt = (
            check_text(record.get(name), place, errors, name) for name in ("language", "prompt")
        )
        found.append((language, prompt))
    if not found:
        raise ValueError(f'{file} has no prompts: write lines of {{"language", "prompt"}}')
    return found


class Samples:
    """Continues fixed prompts greedily, with whatever parameters it is given."""

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[tuple[str, str]],
        tokens: int,
        chat: Chat | None = None,
    ) -> None:
        """Encodes the prompts.

        Args:
            engine: generates, on the mesh of the parameters. Longer prompts than fit into its
                rows before `tokens` new tokens are cut on the left.
            prompts: the language and the text of each.
            tokens: most tokens of a text.
            chat: the model's chat template; if set, each prompt is one user message in it.
        """
        self._engine, self._prompts, self._tokens = engine, list(prompts), tokens
        texts = [prompt for _, prompt in self._prompts]
        if chat:
            texts = [chat.template.prompt([{"role": "user", "content": text}]) for text in texts]
        self._requests = text_requests(engine.tokenizer, texts, tokens, chat.stop if chat else ())

    def generate(
        self, params: Params, step: int, between: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """What the model writes, as samples/<step>.json has it.

        Args:
            params: of the model, on the engine's mesh.
            step: after which they are.
            between: called between program calls; what it raises ends the generation.

        Returns:
            {"step", "tokens", "samples": [{"language", "prompt", "text", "ended"}]}: the prompt as
            it is in the list of prompts, the text without it, and whether the model ended the text
            itself, with EOS or the end of a message; otherwise it is cut after `tokens` tokens.
        """

        def finished(count: int) -> None:
            progress(count)
            between()

        with Progress("samples", len(self._requests), "texts") as progress:
            texts = self._engine.generate(params, self._requests, finished=finished, together=True)
        samples = [
            {"language": language, "prompt": prompt, "text": text.text, "ended": text.ended}
            for (language, prompt), text in zip(self._prompts, texts, strict=True)
        ]
        return {"step": step, "tokens": self._tokens, "samples": samples}
