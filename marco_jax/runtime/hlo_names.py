"""What instructions of a compiled program are: their opcodes, and the code that they come from.

The names in a profiler trace, such as `fusion.12`, say nothing to a reader. The text of the program
that ran has each instruction's opcode and the stack of Python functions that it was traced from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([^\s=]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(")
_NAME = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_ROW = re.compile(r"^(\d+) (.*)$")
_FIELD = re.compile(r"(\w+)=(\d+)")
# Functions of the package that say which part of the model an instruction belongs to.
_PACKAGE = "/marco_jax/"
_DEPTH = 4


class ProgramInstruction(NamedTuple):
    """An instruction of a program.

    `part` names the innermost functions that it comes from, such as "Attention > Projection >
    Manual.weight"; `backward` and `recomputed` say in which pass.
    """

    opcode: str
    part: str = ""
    backward: bool = False
    recomputed: bool = False


def running_programs() -> dict[str, dict[str, ProgramInstruction]]:
    """The instructions of all compiled programs of this process, by the program's name.

    Of programs of one name the longest counts. Where the backend does not tell, there are none.
    """
    texts: dict[str, str] = {}
    try:
        executables = jax.local_devices()[0].client.live_executables()
        modules = [module for executable in executables for module in executable.hlo_modules()]
    except (AttributeError, RuntimeError):
        return {}
    for module in modules:
        text = module.to_string()
        if len(text) > len(texts.get(module.name, "")):
            texts[module.name] = text
    return {name: parse_instructions(text) for name, text in texts.items()}


def parse_instructions(text: str) -> dict[str, ProgramInstruction]:
    """The instructions of a program's HLO text, by name."""
    parts = _Parts(text)
    found = {}
    for line in text.splitlines():
        if match := _INSTRUCTION.match(line):
            name, opcode = match.groups()
            path = _NAME.search(line)
            path = path[1] if path else ""
            frame = _FRAME.search(line)
            found[name] = ProgramInstruction(
                opcode,
                parts.of(int(frame[1])) if frame else "",
                backward="transpose(" in path,
                recomputed="rematted_computation" in path,
            )
    return found


class _Parts:
    """The stack frames of a program, which stand in tables in front of its instructions."""

    def __init__(self, text: str) -> None:
        self.files = dict(_rows(text, "FileNames"))
        self.functions = dict(_rows(text, "FunctionNames"))
        self.locations = {key: _fields(row) for key, row in _rows(text, "FileLocations")}
        self.frames = {key: _fields(row) for key, row in _rows(text, "StackFrames")}
        # The outermost frame has no parent; some versions write parents one too high.
        self.offset = self.frames.get(1, {}).get("parent_frame_id", 0)
        self.known: dict[int, str] = {}

    def of(self, frame: int) -> str:
        """The innermost functions of the package on the stack."""
        if frame not in self.known:
            names = []
            for name in self._functions(frame):
                if name not in ("", "<lambda>", *names) and len(names) < _DEPTH:
                    names.append(name)
            self.known[frame] = " > ".join(reversed(names))
        return self.known[frame]

    def _functions(self, frame: int) -> Iterator[str]:
        """Names from the innermost function outwards."""
        while frame in self.frames:
            location = self.locations.get(self.frames[frame].get("file_location_id", 0), {})
            if _PACKAGE in self.files.get(location.get("file_name_id", 0), ""):
                name = self.functions.get(location.get("function_name_id", 0), "").strip('"')
                yield name.partition(".<locals>")[0].removesuffix(".__call__")
            frame = self.frames[frame].get("parent_frame_id", 0) - self.offset


def _rows(text: str, title: str) -> Iterator[tuple[int, str]]:
    """The numbered rows of a table."""
    _, found, rest = text.partition(f"\n{title}\n")
    for line in rest.splitlines() if found else ():
        if not (match := _ROW.match(line)):
            return
        yield int(match[1]), match[2]


def _fields(row: str) -> Mapping[str, int]:
    return {name: int(value) for name, value in _FIELD.findall(row)}
