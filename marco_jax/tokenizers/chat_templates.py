"""Chat templates of Hugging Face directories: they render a conversation as text for a model."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

# ChatML as in Qwen2's tokenizer_config.json, without its default system message.
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The token that ends a message in ChatML.
CHATML_END = "<|im_end|>"
# The template of Qwen/Qwen2-7B-Instruct (tokenizer_config.json), which adds a system message to a
# conversation without one. The default for tokenizers without a template.
QWEN2_CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    + CHATML.partition("{% for message in messages %}")[2]
)

# Marks, during rendering, the end of a message that the model is to continue.
_MARK = "<<continued here>> "


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
    special_tokens: Mapping[str, str] | None = None,
) -> str:
    """Renders a conversation as text, with the same result as `transformers`.

    Args:
        template: Jinja, run in a sandbox.
        add_generation_prompt: True: the text ends with the start of an assistant message. False:
            it ends with the content of the last message, for the model to continue.
        special_tokens: further variables of the template, such as eos_token.

    Raises:
        ValueError: the template rejects the conversation.
    """
    messages = [dict(message) for message in messages]
    if not add_generation_prompt:
        messages[-1]["content"] += _MARK
    text = _render(template, messages, add_generation_prompt, special_tokens or {})
    if add_generation_prompt:
        return text
    if _MARK.strip() not in text:
        raise ValueError("the chat template omits the last message: it cannot be continued")
    before, _, rest = text.rpartition(_MARK.strip())
    # If the mark's last space is gone the template strips messages, so the message is stripped too.
    return before if rest.startswith(" ") else before.rstrip()


def render_with_spans(
    template: str, messages: Sequence[Mapping[str, str]], selected: Sequence[bool]
) -> tuple[str, list[tuple[int, int]]]:
    """Renders a whole conversation as text, and locates the selected messages in it.

    The span of a message is the part that a model has to generate: everything after the generation
    prompt, including the end mark (`<|im_end|>` in ChatML), without whitespace after it.

    Returns:
        the text, and [start, stop) in characters of every selected message.

    Raises:
        ValueError: the template rejects the conversation, or renders a message differently when
            more messages follow.
    """
    text = _render(template, messages, False, {})
    spans = []
    for number, wanted in enumerate(selected):
        if not wanted:
            continue
        prompt = _render(template, messages[:number], True, {})
        written = _render(template, messages[: number + 1], False, {})
        if not (written.startswith(prompt) and text.startswith(written)):
            raise ValueError(
                f"the chat template renders the text before message {number + 1} differently when "
                "more messages follow: give another template"
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
        raise ValueError(f"the chat template rejects the conversation: {error}") from None


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    """Compiles a template with the same Jinja environment as `transformers`."""
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
