"""Runs lm-evaluation-harness on our engine: any of its tasks, with its prompts and metrics.

    python -m marco_jax.lm_eval --model marco_jax --model_args pretrained=PATH --tasks xcopa_zh

The harness finds models of its own package only: `--model marco_jax` works after `register` has
run, as it has in `marco_jax.lm_eval`. From Python,
`lm_eval.simple_evaluate(model=EngineLM(engine, params), ...)` needs no registration.

Tokenization, truncation and stop strings are the harness's: TemplateLM encodes pairs (whitespace
at the end of a context moves to the continuation; an empty context becomes EOS).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, Sampling, ScoreRequest
from marco_jax.extras import optional
from marco_jax.model.parameters import Params
from marco_jax.tokenizers.chat_templates import CHATML, ChatTemplate

with optional():
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

NAME = "marco_jax"

# Opens a model: (path, max_length, tokens_per_batch, dtype) -> engine and parameters.
Load = Callable[[str, int, int, str], tuple[Engine, Params]]

# Generation options besides `until` and `max_gen_toks`.
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p")


class EngineLM(TemplateLM):
    """An lm-evaluation-harness model that calls our engine; the engine chooses batch sizes."""

    def __init__(
        self,
        engine: Engine,
        params: Params,
        *,
        seed: int = 0,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Wraps an engine with its tokenizer, and parameters.

        `seed` seeds sampling for tasks with a temperature. The harness's `--apply_chat_template`
        uses the tokenizer's chat template (ChatML where there is none) with the user's `variables`.
        """
        super().__init__()
        self._engine, self._params, self._seed = engine, params, seed
        self._template = ChatTemplate.of(engine.tokenizer, variables, CHATML)

    @property
    def eot_token_id(self) -> int:
        """EOS, which is also the prefix of an empty context."""
        return self._engine.tokenizer.eos_id

    @property
    def max_length(self) -> int:
        """Maximum number of tokens that the model reads."""
        return self._engine.max_length

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text, without added special tokens."""
        return self._engine.tokenizer.encode(string)

    @property
    def tokenizer_name(self) -> str:
        """Identifies the tokenizer in the harness's request cache."""
        return self._engine.tokenizer.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The chat template; there is only one."""
        return self._template.source if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Renders a conversation as text, for the harness's `--apply_chat_template`."""
        if add_generation_prompt:
            return self._template.prompt(chat_history)
        return self._template.continued(chat_history)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [ScoreRequest(context, continuation) for _, context, continuation in requests]
        scores = self._engine.score(self._params, asked)
        answers = [(score.logprob, score.is_greedy) for score in scores]
        for (pair, _, _), answer in zip(requests, answers, strict=True):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts, in disjoint windows of `max_length` tokens."""
        texts = [request.args[0] for request in requests]
        windows, owners = [], []
        for number, text in enumerate(texts):
            tokens = self.tok_encode(text)
            cut = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            for pair in map(make_disjoint_window, cut):
                windows.append((None, *pair))
                owners.append(number)
        totals = [0.0] * len(texts)
        for number, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += logprob
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations, truncated before the first stop string.

        Raises:
            ValueError: a task asks for generation options that the engine does not have.
        """
        by_sampling: dict[Sampling, list[int]] = {}
        asked = []
        for number, request in enumerate(requests):
            context, options = request.args
            generate, sampling = self._read_options(context, options)
            asked.append(generate)
            by_sampling.setdefault(sampling, []).append(number)
        texts = [""] * len(requests)
        for sampling, numbers in by_sampling.items():
            same = [asked[number] for number in numbers]
            results = self._engine.generate(self._params, same, sampling=sampling, seed=self._seed)
            for number, result in zip(numbers, results, strict=True):
                texts[number] = result.text
                self.cache_hook.add_partial("generate_until", requests[number].args, result.text)
        return texts

    def _read_options(
        self, context: str, options: dict[str, Any]
    ) -> tuple[GenerateRequest, Sampling]:
        given: dict[str, Any] = dict(normalize_gen_kwargs(options))
        until, tokens = given.pop("until"), given.pop("max_gen_toks")
        chosen = {name: given.pop(name) for name in _SAMPLING if name in given}
        if given:
            raise ValueError(
                f"generation option {sorted(given)[0]!r} is not supported: use until, "
                f"max_gen_toks, {', '.join(_SAMPLING)}"
            )
        do_sample = chosen.pop("do_sample")
        ids = self.tok_encode(context) or [self.prefix_token_id]
        stop = tuple(string for string in until if string)
        return GenerateRequest(ids, tokens, stop), Sampling(**chosen) if do_sample else Sampling()


def register(load: Load) -> None:
    """Makes `--model marco_jax` known to the harness in this process.

    Its `--model_args` are pretrained=PATH (required), max_length, tokens_per_batch, dtype, seed,
    and variables of the chat template: chat_template_args and enable_thinking.
    """

    @register_model(NAME)
    class MarcoJax(EngineLM):
        """A model at a path, as `load` opens it."""

        def __init__(
            self,
            pretrained: str,
            max_length: int = 4096,
            tokens_per_batch: int = 8192,
            dtype: str = "float32",
            seed: int = 0,
            chat_template_args: Mapping[str, Any] | None = None,
            enable_thinking: bool | None = None,
            **ignored: Any,
        ) -> None:
            # The harness passes its --batch_size and --device, which the engine chooses itself.
            unknown = set(ignored) - {"batch_size", "max_batch_size", "device"}
            if unknown:
                raise ValueError(
                    f"model_args has {sorted(unknown)[0]!r}: use pretrained, max_length, "
                    "tokens_per_batch, dtype, seed, chat_template_args and enable_thinking"
                )
            variables = dict(chat_template_args or {})
            if enable_thinking is not None:
                variables["enable_thinking"] = enable_thinking
            engine, params = load(pretrained, int(max_length), int(tokens_per_batch), dtype)
            super().__init__(engine, params, seed=seed, variables=variables)
