"""Chat templates of Hugging Face directories: a conversation as the text that a model reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from marco_jax.tokenizer_files import read_chat_template as read_chat_template

# ChatML as Qwen2's own tokenizer_config.json has it, but for its default system message.
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
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
    messages = [dict(message) for message in messages]
    if not add_generation_prompt:
        messages[-1]["content"] += _MARK
    try:
        text = environment.from_string(template).render(
            messages=messages,
            add_generation_prompt=add_generation_prompt,
            **(special_tokens or {}),
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses the conversation: {error}") from None
    if add_generation_prompt:
        return text
    if _MARK.strip() not in text:
        raise ValueError("the chat template leaves out the last message: it cannot be continued")
    begun, _, rest = text.rpartition(_MARK.strip())
    # A template that strips messages has taken the mark's last space, and is to strip the message.
    return begun if rest.startswith(" ") else begun.rstrip()
