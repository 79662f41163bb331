"""Compiles chat templates in a Jinja environment with the same result as that of `transformers`.

It is a sandbox with loop controls, `raise_exception`, `strftime_now`, a plain `tojson`, and the tag
`{% generation %}`, which surrounds what an assistant writes.
"""

from __future__ import annotations

import datetime
import functools
import json
from typing import Any, NoReturn

# Around a generation block during rendering: private-use characters that no text should have.
_OPEN, _CLOSE = "\U0010fdd0", "\U0010fdd1"


@functools.lru_cache(maxsize=16)
def compile_chat_template(source: str, silent: tuple[str, ...] = (), marks: bool = False) -> Any:
    """Compiles a template.

    Args:
        source: Jinja.
        silent: names that render as "" where they are not given. Any other name that is not given
            may be tested (`{% if tools %}`), but not written.
        marks: whether generation blocks are rendered with marks, for `split_generation_blocks`.

    Raises:
        jinja2.TemplateError: `source` is not a template.
    """
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = frozenset({"generation"})

        def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_written")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _written(self, caller: jinja2.runtime.Macro) -> str:
            return f"{_OPEN}{caller()}{_CLOSE}" if marks else caller()

    class Missing(jinja2.Undefined):
        def __str__(self) -> str:
            # A field that a message does not have is empty, as in transformers.
            if self._undefined_obj is jinja2.utils.missing and self._undefined_name not in silent:
                raise jinja2.UndefinedError(
                    f"it writes {self._undefined_name!r}, which has no value: set it in "
                    "chat.template_kwargs (--template_kwargs), or in tokenizer_config.json if it "
                    "is a special token"
                )
            return ""

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=Missing,
        extensions=[loopcontrols, Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment.from_string(source)


def split_generation_blocks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its marks, and [start, stop) in characters of what stood between them."""
    parts, blocks, size = [], [], 0
    for number, part in enumerate(text.split(_OPEN)):
        inside, mark, outside = part.partition(_CLOSE) if number else ("", "", part)
        if number and mark:
            blocks.append((size, size + len(inside)))
        parts += [inside, outside]
        size += len(inside) + len(outside)
    return "".join(parts), blocks


def _refuse(message: str) -> NoReturn:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter escapes characters of HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
