"""Chat templates of Hugging Face directories: a conversation as the text that a model reads."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

# ChatML as Qwen2's own tokenizer_config.json has it, but for its default system message.
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The token that ends a message there.
CHATML_END = "<|im_end|>"
# The whole of it, for a tokenizer that brings none: a conversation without a system message gets
# one (tokenizer_config.json of Qwen/Qwen2-7B-Instruct).
QWEN2_CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    + CHATML.partition("{% for message in messages %}")[2]
)

# Stands behind a message that is to be continued while it is rendered.
_MARK = "<<continued here>> "


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
    special_tokens: Mapping[str, str] | None = None,
) -> str:
    """A conversation as text, as `transformers` renders it.

    Args:
        template: Jinja, run in a sandbox.
        messages: each with a role and its content.
        add_generation_prompt: whether the text ends where the assistant begins; without it the
            text ends with the last message's own content, for the model to go on.
        special_tokens: what templates may name besides, such as eos_token.

    Raises:
        ValueError: the template refuses the conversation.
    """
    messages = [dict(message) for message in messages]
    if not add_generation_prompt:
        messages[-1]["content"] += _MARK
    text = _render(template, messages, add_generation_prompt, special_tokens or {})
    if add_generation_prompt:
        return text
    if _MARK.strip() not in text:
        raise ValueError("the chat template leaves out the last message: it cannot be continued")
    begun, _, rest = text.rpartition(_MARK.strip())
    # A template that strips messages has taken the mark's last space, and is to strip the message.
    return begun if rest.startswith(" ") else begun.rstrip()


def render_learnt(
    template: str, messages: Sequence[Mapping[str, str]], learnt: Sequence[bool]
) -> tuple[str, list[tuple[int, int]]]:
    """A whole conversation as text, and where in it the learnt messages stand.

    What is learnt of a message is what a model has to write: all that follows the prompt for it,
    the mark of its end included (`<|im_end|>` in ChatML), and not the whitespace after that.

    Args:
        template: Jinja, run in a sandbox.
        messages: each with a role and its content.
        learnt: for each message, whether it is.

    Returns:
        the text, and [start, stop) in characters of every learnt message.

    Raises:
        ValueError: the template refuses the conversation, or changes earlier messages as it goes.
    """
    text = _render(template, messages, False, {})
    spans = []
    for number, wanted in enumerate(learnt):
        if not wanted:
            continue
        prompt = _render(template, messages[:number], True, {})
        written = _render(template, messages[: number + 1], False, {})
        if not (written.startswith(prompt) and text.startswith(written)):
            raise ValueError(
                "the chat template does not write a conversation message by message: what is "
                f"before message {number + 1} depends on what follows; give another template"
            )
        spans.append((len(prompt), len(written.rstrip())))
    return text, spans


def _render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool,
    special_tokens: Mapping[str, str],
) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return _compiled(template).render(
            messages=messages, add_generation_prompt=add_generation_prompt, **special_tokens
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses the conversation: {error}") from None


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    """The template as `transformers` compiles it."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)
