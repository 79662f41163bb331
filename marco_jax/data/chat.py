"""Conversations and preferences from records, whichever of the usual forms they have.

A conversation: {"messages": [{"role": ..., "content": ...}, ...]}; {"conversations": [{"from":
"human", "value": ...}, ...]}; {"instruction": ..., "input": ..., "output": ...}; or {"prompt": ...,
"response": ...}, also under the names "completion", "inputs" and "targets". A "system" message may
stand beside the last three.

Messages may have further fields that chat templates read, such as "tool_calls", and a record may
have "tools" (JSON schemas of functions) and "chat_template_kwargs" (further variables of the
template).

A preference: {"prompt": ..., "chosen": ..., "rejected": ...}, texts or lists of messages; without
a prompt, the messages that both conversations begin with are it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

USER, ASSISTANT, SYSTEM, TOOL = ROLES = ("user", "assistant", "system", "tool")
_ROLES = {"human": USER, "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT}
# Fields of a message that are read here.
_READ = ("role", "from", "content", "value", "weight")
# Names of a prompt and of what answers it.
_SINGLE = (("prompt", "response"), ("prompt", "completion"), ("inputs", "targets"))
_FORMS = (
    '"messages" (a list of objects with role and content), "instruction" and "output", or '
    '"prompt" and "response"'
)


class Turn(NamedTuple):
    """A message of a conversation, and whether the model is trained on it.

    `fields` is a JSON object of what else the message has, such as "tool_calls"; "" for nothing.
    """

    role: str
    content: str
    trained: bool = False
    fields: str = ""

    def message(self) -> dict[str, Any]:
        """The message as chat templates read it."""
        own = {"role": self.role, "content": self.content}
        return own | json.loads(self.fields) if self.fields else own


def conversation(record: Mapping[str, Any], place: str) -> tuple[Turn, ...]:
    """The messages of a record; every assistant message after a user's is trained on.

    A listed message with "weight": 0 is not.

    Raises:
        ValueError: the record at `place` has no conversation, or nothing in it to train on.
    """
    turns = _listed(record, place) or _single(record)
    if not turns:
        raise ValueError(f"{place} has no conversation: write {_FORMS}")
    if not any(turn.trained for turn in turns):
        raise ValueError(
            f"{place} has no assistant message after a user's: there is nothing to train on"
        )
    return tuple(turns)


def question(record: Mapping[str, Any], place: str) -> tuple[tuple[Turn, ...], str | None]:
    """The messages of a prompt, and the answer in the record, if it has one.

    Besides the forms of a conversation, a "prompt" or an "instruction" alone will do: a text, or a
    prompt as a list of messages. A last message of the assistant is the answer.

    Raises:
        ValueError: the record at `place` has neither, or nothing to answer at its end.
    """
    turns = _listed(record, place) or _single(record)
    if not turns:
        asked = _unpacked(record.get("prompt", record.get("instruction")))
        asked = [{"role": USER, "content": asked}] if isinstance(asked, str) else asked
        if not isinstance(asked, list):
            raise ValueError(f'{place} has nothing to answer: write "prompt", or {_FORMS}')
        turns = _with_system(record, _turns(asked, place))
    answer = turns.pop().content if turns and turns[-1].role == ASSISTANT else None
    if not turns or turns[-1].role not in (USER, TOOL):
        raise ValueError(f"{place}: no message of the user or a tool stands before the answer")
    return tuple(turns), answer


def template_variables(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What a record gives to the chat template besides its messages: tools, and further variables.

    Raises:
        ValueError: the record at `place` has tools or variables of another form.
    """
    tools = _decoded(record.get("tools"))
    given = _decoded(record.get("chat_template_kwargs")) or {}
    if tools and not (isinstance(tools, list) and all(isinstance(t, dict) for t in tools)):
        raise ValueError(f'{place}: "tools" is not a list of JSON schemas')
    if not isinstance(given, dict):
        raise ValueError(f'{place}: "chat_template_kwargs" is not an object of names and values')
    return {**given, **({"tools": tools} if tools else {})}


def preference(record: Mapping[str, Any], place: str) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """The conversations that end with the chosen and with the rejected answer.

    Only their last message, the assistant's, is trained on.

    Raises:
        ValueError: the record at `place` has no such pair, or one whose answers do not follow the
            same messages.
    """
    sides = []
    for name in ("chosen", "rejected"):
        answer = _unpacked(record.get(name))
        prompt = _unpacked(record.get("prompt", []))
        answer = [{"role": ASSISTANT, "content": answer}] if isinstance(answer, str) else answer
        prompt = [{"role": USER, "content": prompt}] if isinstance(prompt, str) else prompt
        if not isinstance(answer, list) or not isinstance(prompt, list):
            raise ValueError(
                f'{place} has no preference: write "prompt", "chosen" and "rejected", each a text '
                "or a list of messages"
            )
        turns = _with_system(record, _turns([*prompt, *answer], place))
        sides.append([turn._replace(trained=False) for turn in turns])
    chosen, rejected = sides
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise ValueError(
            f"{place}: the chosen and the rejected answer do not follow the same messages: they "
            "are to differ in the last one alone"
        )
    if chosen[-1].role != ASSISTANT or rejected[-1].role != ASSISTANT:
        raise ValueError(f"{place}: the chosen and the rejected message must be the assistant's")
    first, second = (tuple([*side[:-1], side[-1]._replace(trained=True)]) for side in sides)
    return first, second


def plain_text(turns: Sequence[Turn]) -> str:
    """The contents of a conversation, without markup."""
    return "\n".join(turn.content for turn in turns)


def _listed(record: Mapping[str, Any], place: str) -> list[Turn]:
    messages = _unpacked(record.get("messages", record.get("conversations")))
    if messages is None:
        return []
    if not isinstance(messages, list) or not messages:
        raise ValueError(f'{place} has no list "messages" of objects with role and content')
    return _turns(messages, place)


def _single(record: Mapping[str, Any]) -> list[Turn]:
    prompt, answer = record.get("instruction"), record.get("output")
    if isinstance(prompt, str) and record.get("input"):
        prompt = f"{prompt}\n{record['input']}"
    for names in _SINGLE:
        if not isinstance(prompt, str) or not isinstance(answer, str):
            prompt, answer = (record.get(name) for name in names)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return []
    messages = [{"role": USER, "content": prompt}, {"role": ASSISTANT, "content": answer}]
    return _with_system(record, _turns(messages, ""))


def _with_system(record: Mapping[str, Any], turns: list[Turn]) -> list[Turn]:
    system = record.get("system")
    if not isinstance(system, str) or not system or (turns and turns[0].role == SYSTEM):
        return turns
    return [Turn(SYSTEM, _clean(system)), *turns]


def _turns(messages: Sequence[Any], place: str) -> list[Turn]:
    turns: list[Turn] = []
    asked = False
    for message in messages:
        if not isinstance(message, dict):
            message = {}
        role = message.get("role", message.get("from"))
        content = _joined(message.get("content", message.get("value")))
        fields = {name: value for name, value in message.items() if name not in _READ}
        if content is None and message.get("tool_calls"):
            content, fields["content"] = "", None
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError(f'{place} has no list "messages" of objects with role and content')
        role = _ROLES.get(role, role)
        if role not in ROLES:
            raise ValueError(f"{place} has a message of role {role!r}: write {', '.join(ROLES)}")
        trained = role == ASSISTANT and asked and message.get("weight", 1) != 0
        written = json.dumps(fields, ensure_ascii=False) if fields else ""
        turns.append(Turn(role, _clean(content), trained, written))
        asked |= role == USER
    return turns


def _unpacked(value: Any) -> Any:
    """A list that a data set holds as JSON text."""
    if isinstance(value, str) and value.startswith("[{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _decoded(value: Any) -> Any:
    """A value that a data set holds as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except json.JSONDecodeError:
        return value


def _joined(content: Any) -> Any:
    """The text of a content that is a list of parts of text."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content]
        return "".join(texts) if texts and all(isinstance(t, str) for t in texts) else content
    return content


def _clean(text: str) -> str:
    """NFC with plain line ends; whitespace is part of the content and stays."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
