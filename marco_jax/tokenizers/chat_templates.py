"""Chat templates of Hugging Face directories: they render a conversation as text for a model.

A template sees what `transformers` gives it: the messages, `add_generation_prompt`, the tokenizer's
special tokens (`bos_token`, `eos_token`, ...), `tools`, and any further variables of the user, such
as `enable_thinking`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.tokenizers.jinja_templates import compile_chat_template, split_generation_blocks
from marco_jax.tokenizers.tokenizer import Tokenizer

# ChatML as in Qwen2's tokenizer_config.json, without its default system message.
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The template of Qwen/Qwen2-7B-Instruct (tokenizer_config.json), which adds a system message to a
# conversation without one. The default for tokenizers without a template.
QWEN2_CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    + CHATML.partition("{% for message in messages %}")[2]
)
# The field of tokenizer_config.json that keeps the variables a model was trained with.
TEMPLATE_VARIABLES = "chat_template_kwargs"

# Marks, during rendering, the end of a message that the model is to continue.
_MARK = "<<continued here>> "
# Names of special tokens that a template may use without checking: "" where there is none.
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
_SPECIAL += ("mask_token", "additional_special_tokens")
# A conversation whose rendering shows what stands around an assistant message.
_PROBE = ({"role": "user", "content": "0"}, {"role": "assistant", "content": "0 said 0"})
# Names under which data sets have an assistant's thoughts; templates read the first.
_REASONING = ("reasoning_content", "reasoning", "thinking")

Message = Mapping[str, Any]
Variables = Mapping[str, Any]
# Names that a rendering sets itself.
_RESERVED = ("messages", "add_generation_prompt", "documents")


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A chat template with its variables.

    Attributes:
        source: Jinja, run in a sandbox.
        variables: what the template sees besides the conversation, by name: special tokens and the
            user's own.
    """

    source: str
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        variables: Mapping[str, Any] | None = None,
        default: str | None = None,
    ) -> ChatTemplate:
        """The template that belongs to a tokenizer, with its special tokens.

        Args:
            tokenizer: its companions have the template and the variables that go with it.
            variables: of the user; they come before the tokenizer's.
            default: the template of a tokenizer that has none.

        Raises:
            ValueError: the tokenizer has no chat template and there is no default.
        """
        source = tokenizer.companions.chat_template or default
        if not source:
            raise ValueError(
                "the model has no chat template: use a model fine-tuned on conversations, or put a "
                "chat_template.jinja beside its tokenizer"
            )
        own = tokenizer.companions.settings.get(TEMPLATE_VARIABLES) or {}
        given = {**own, **(variables or {})}
        if taken := sorted(set(given) & set(_RESERVED)):
            raise ValueError(f"the chat template's {taken[0]!r} is set by each conversation")
        return cls(source, {**special_tokens(tokenizer), **given})

    @property
    def fingerprint(self) -> str:
        """A text that differs between templates that render differently."""
        return self.source + json.dumps(self.variables, sort_keys=True, ensure_ascii=False)

    def prompt(self, messages: Sequence[Message], variables: Variables | None = None) -> str:
        """The text of a conversation up to the start of the assistant's answer.

        `variables` of this conversation, such as `tools`, come before the template's own.

        Raises:
            ValueError: the template rejects the conversation.
        """
        return self._render(messages, True, variables)

    def continued(self, messages: Sequence[Message], variables: Variables | None = None) -> str:
        """The text up to the end of the last message's content, for the model to continue.

        Raises:
            ValueError: the template rejects the conversation, or omits the last message.
        """
        messages = [dict(message) for message in messages]
        messages[-1]["content"] += _MARK
        text = self._render(messages, False, variables)
        if _MARK.strip() not in text:
            raise ValueError("the chat template omits the last message: it cannot be continued")
        before, _, rest = text.rpartition(_MARK.strip())
        # Where the mark's last space is gone the template strips messages; so is this one then.
        return before if rest.startswith(" ") else before.rstrip()

    def spans(
        self,
        messages: Sequence[Message],
        selected: Sequence[bool],
        variables: Variables | None = None,
    ) -> tuple[str, list[tuple[int, int]]]:
        """Renders a whole conversation as text, and locates the selected messages in it.

        The span of a message is the part that a model has to generate. A template with
        `{% generation %}` blocks says itself what that is. In others it is everything after the
        generation prompt, including the end mark (`<|im_end|>` in ChatML), without whitespace after
        it: the text of the messages before, with the generation prompt, ends where it begins. A
        template that renders earlier messages differently once more follow (Qwen3 leaves out their
        thoughts) is searched for the text that precedes and ends its assistant messages.

        Args:
            messages: with role and content.
            selected: whether each message is to be located, all of them the assistant's.
            variables: of this conversation, such as `tools`; they come before the others.

        Returns:
            the text, and [start, stop) in characters of every selected message.

        Raises:
            ValueError: the template rejects the conversation, or hides where its messages are.
        """
        if self._has_blocks:
            text, blocks = split_generation_blocks(
                self._render(messages, False, variables, marks=True)
            )
            return text, _chosen(blocks, messages, selected)
        text = self._render(messages, False, variables)
        spans = []
        for number, wanted in enumerate(selected):
            if not wanted:
                continue
            prompt = self._render(messages[:number], True, variables)
            written = self._render(messages[: number + 1], False, variables)
            if not (written.startswith(prompt) and text.startswith(written)):
                return text, _chosen(self._search(text, messages), messages, selected)
            spans.append((len(prompt), len(written.rstrip())))
        return text, spans

    @functools.cached_property
    def end(self) -> str:
        """The text that ends an assistant message, without whitespace around it; "" if none does.

        Raises:
            ValueError: the template rejects a question and its answer.
        """
        text = self._render(_PROBE, False, None)
        return text.rpartition(_PROBE[1]["content"])[2].strip()

    @functools.cached_property
    def _has_blocks(self) -> bool:
        return bool(re.search(r"\{%-?\s*generation\s*-?%\}", self.source))

    @functools.cached_property
    def _headers(self) -> list[str]:
        """Texts that an assistant message begins with, the shortest first: the first lines of one.

        It is what the generation prompt and a written answer have in common.
        """
        before = self._render(_PROBE[:1], False, None)
        prompt = self._render(_PROBE[:1], True, None)
        written = self._render(_PROBE, False, None)
        same = sum(1 for _ in itertools.takewhile(_equal, zip(prompt, written, strict=False)))
        lines = prompt[len(before) : same].splitlines(keepends=True)
        return list(itertools.accumulate(lines))

    def _search(self, text: str, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Finds every assistant message in a text by what precedes and what ends it.

        Raises:
            ValueError: there are more or fewer of them than messages, or one has other content.
        """
        answers = [message for message in messages if message["role"] == "assistant"]
        hint = "give a template with {% generation %} blocks around what the assistant writes"
        if not self._headers or not self.end or text.count(self._headers[0]) != len(answers):
            raise ValueError(
                "the chat template renders messages differently when more follow, and does not "
                f"show where the assistant's are: {hint}"
            )
        found, stop = [], 0
        for message in answers:
            header = text.index(self._headers[0], stop)
            start = max(
                header + len(text_) for text_ in self._headers if text.startswith(text_, header)
            )
            stop = text.find(self.end, start) + len(self.end)
            # Thoughts before it may be gone.
            tail = ((message.get("content") or "").split() or [""])[-1]
            if stop < start or tail not in text[start:stop]:
                raise ValueError(
                    "the chat template leaves out or changes the content of an assistant message "
                    f"that ends with {tail!r}: {hint}"
                )
            found.append((start, stop))
        return found

    def _render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        variables: Variables | None,
        marks: bool = False,
    ) -> str:
        from jinja2.exceptions import TemplateError

        silent = tuple(name for name in _SPECIAL if name not in self.variables)
        try:
            return compile_chat_template(self.source, silent, marks).render(
                messages=[_with_reasoning(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **{"tools": None, "documents": None, **self.variables, **(variables or {})},
            )
        # A template's own errors; and those of Python in its expressions.
        except (TemplateError, TypeError, AttributeError, KeyError, IndexError) as error:
            detail = f"{error}".strip() or type(error).__name__
            raise ValueError(f"the chat template rejects the conversation: {detail}") from None


def parse_variables(text: str, field: str) -> dict[str, Any]:
    """Variables of a template from the text of a flag or field, a JSON object; {} from "".

    Raises:
        ValueError: `text` of `field` is not a JSON object.
    """
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{field}={text}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(
            f'{field}={text}: write a JSON object, such as {{"enable_thinking": false}}'
        )
    return found


def special_tokens(tokenizer: Tokenizer) -> dict[str, Any]:
    """The special tokens that `transformers` gives to a template, by name.

    EOS and padding are the tokenizer's EOS where tokenizer_config.json does not say.
    """
    settings = tokenizer.companions.settings
    given = {"eos_token": tokenizer.eos_token, "pad_token": tokenizer.eos_token}
    names = {*_SPECIAL, *(name for name in settings if name.endswith("_token"))}
    given |= {name: settings[name] for name in sorted(names) if name in settings}
    given |= settings.get("extra_special_tokens") or {}
    # Tokens may be objects that say how they are matched.
    plain = {name: _text_of(value) for name, value in given.items()}
    return {name: value for name, value in plain.items() if value and value is not True}


def _text_of(token: Any) -> Any:
    if isinstance(token, list):
        return [_text_of(item) for item in token]
    return token.get("content") if isinstance(token, Mapping) else token


def _with_reasoning(message: Message) -> dict[str, Any]:
    """A message with its thoughts under the name that templates read."""
    thoughts = [message[name] for name in _REASONING if message.get(name) is not None]
    return {**message, **({_REASONING[0]: thoughts[0]} if thoughts else {})}


def _chosen(
    spans: Sequence[tuple[int, int]],
    messages: Sequence[Message],
    selected: Sequence[bool],
) -> list[tuple[int, int]]:
    """The spans of selected messages among those of all assistant messages."""
    wanted = [
        chosen
        for message, chosen in zip(messages, selected, strict=True)
        if message["role"] == "assistant"
    ]
    if len(spans) == len(wanted):
        return [span for span, chosen in zip(spans, wanted, strict=True) if chosen]
    if all(wanted):
        return list(spans)
    raise ValueError(
        f"the chat template has {len(spans)} generation blocks for {len(wanted)} messages of the "
        "assistant, so that those with weight 0 cannot be found: leave out the weights"
    )


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]
