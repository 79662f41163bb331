"""The documentation is true: the site builds, and what it tells a reader to type can be typed.

A block of commands or code in docs/ has a mark on the line above its fence:

    <!-- run -->               the fast tests run it (Python snippets)
    <!-- run: slow -->         the slow tests run it, page by page, in one folder, at small size
    <!-- file: NAME -->        the block is the file NAME of that folder
    <!-- needs: WHAT -->       it is not run: a test machine has no WHAT

Whatever the mark, every command is parsed by the real parser, and its config fields are set in the
real config.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from marco_jax.commands.parser import create_parser
from marco_jax.data.readers import FORMS
from marco_jax.evaluation.benchmarks import BENCHMARKS
from marco_jax.languages import LANGUAGES
from marco_jax.training.config import load_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# Languages of a fence whose blocks are commands, or code.
SHELL, CODE = ("sh", "bash", "console"), ("python",)
NEEDS = (
    *("accelerator", "benchmarks", "checkpoint", "corpus", "google-crc32c", "pod", "time"),
    "tpu compiler",
)
# Programs that a page may call besides the project's own.
OTHER_PROGRAMS = ("pip", "git", "export", "gcloud", "xpk", "docker", "cd", "seqio_cache_tasks")
# What stands for a reader's own field or file in README.md.
PLACEHOLDER = "field"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)")
_MARK = re.compile(r"^\s*<!-- (?P<kind>run|file|needs)(?:: (?P<value>.+))? -->$")
_INLINE = re.compile(r"`((?:marco|python -m|make) [^`\n]+)`")
_SUBCOMMANDS = ("marco ", "python -m ", "make ")

# Of the runs that pages start: seconds each, whatever size the page has them.
SMALL = (
    "steps=6",
    # What the first run has tokenised the others need not tokenise again.
    "data_cache=runs/tokens",
    "log_every=2",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.num_key_value_heads=1",
    "model.head_dim=16",
    "batch.length=64",
    "batch.sequences_per_chip=2",
    "evaluation.tasks=bits_per_byte",
    "evaluation.languages=en,kk",
    "evaluation.max_length=256",
    "evaluation.tokens_per_batch=512",
)
FIRST_TOKENIZER = "runs/first/tokenizer"
SMALL_FLAGS = {
    "eval": ("--limit=1", "--tasks=bits_per_byte"),
    "generate": ("--max_new_tokens=4",),
    "translate": ("--max_new_tokens=4",),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its mark, and what it holds."""

    page: str
    line: int
    language: str
    kind: str
    value: str
    text: str

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its commands, a line each."""
        return commands_of(self.text) if self.language in SHELL else []


def blocks_of(path):
    """The fenced blocks of a page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if not fence:
            number += 1
            continue
        end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
        above = _MARK.match(lines[number - 1]) if number else None
        body = [line.removeprefix(fence["indent"]) for line in lines[number + 1 : end]]
        found.append(
            Block(
                *(path.name, number + 1, fence["language"]),
                *(above["kind"] if above else "", (above["value"] if above else "") or ""),
                "\n".join(body) + "\n",
            )
        )
        number = end + 1
    return found


def commands_of(text):
    """Commands of a text: continued lines joined, comments and blank lines left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def readme_commands():
    """Commands of README.md's indented blocks, its optional parts as if they were given."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = "\n".join(b.text for b in blocks_of(ROOT / "README.md") if b.language in SHELL)
    indented = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    whole = re.sub(r"[\[\]]| \.\.\.", "", fenced + indented)
    return [c for c in commands_of(whole) if c.startswith(_SUBCOMMANDS)]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [(block.place, command) for block in BLOCKS for command in block.commands]
COMMANDS += [("README.md", command) for command in readme_commands()]


def check(words):
    """Refuses a command that its program would refuse; returns what is wrong, or ""."""
    words = [word.removeprefix(".venv/bin/") for word in words]
    if words[0] == "marco" or words[:3] == ["python", "-m", "marco_jax"]:
        return _check_marco(words[1 if words[0] == "marco" else 3 :])
    if words[:2] == ["python", "-m"]:
        return _check_module(words[2], words[3:])
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wrong = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"no target {wrong[0]}" if wrong else ""
    return "" if words[0] in OTHER_PROGRAMS else f"{words[0]} is no known program"


def _check_marco(words):
    parser = create_parser()
    try:
        arguments, rest = parser.parse_known_args(words)
    except SystemExit:
        return "the parser refuses it"
    wrong = [word for word in rest if not word.startswith("--config.")]
    if wrong or (rest and not hasattr(arguments, "config")):
        return f"unrecognized argument {(wrong or rest)[0]}"
    overrides = [word.removeprefix("--config.") for word in rest]
    overrides = [item for item in overrides if item.partition("=")[0] != PLACEHOLDER]
    if not hasattr(arguments, "config"):
        return ""
    path = ROOT / arguments.config
    if not path.is_file():
        written = [b for b in BLOCKS if (b.kind, b.value) == ("file", arguments.config)]
        return "" if written else f"there is no {arguments.config}"
    try:
        load_config(str(path), overrides)
    except ValueError as error:
        return str(error)
    return ""


def _check_module(module, words):
    """A module of ours, and that its source names each flag."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return f"there is no module {module}"
    if module.partition(".")[0] == "seqio":
        return ""
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    source = pathlib.Path(spec.origin).read_text(encoding="utf-8")
    # Studies of one package share a command line.
    for name in re.findall(r"^from (experiments\.\w+\.\w+) import", source, re.M):
        source += pathlib.Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
    if "--" in words:
        # A launcher's: what stands behind is for marco.
        split = words.index("--")
        if wrong := _check_marco(words[split + 1 :]):
            return wrong
        words = words[:split]
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    own = [flag for flag in flags if not flag.startswith("--config.")]
    # Benchmarks name their flags as arguments of read_flags.
    named = re.findall(r"\b(\w+)=\(", source) if "read_flags(" in source else []
    known = {f"--{name}" for name in named}
    # lm-evaluation-harness has the flags of its own command line.
    wrong = [
        flag
        for flag in own
        if f'"{flag}"' not in source and flag not in known and module != "marco_jax.lm_eval"
    ]
    return f"{module} has no flag {wrong[0]}" if wrong else ""


@pytest.mark.parametrize(("place", "command"), COMMANDS, ids=[c[1][:60] for c in COMMANDS])
def test_a_command_is_one_that_its_program_takes(monkeypatch, place, command):
    monkeypatch.chdir(ROOT)
    assert not check(shlex.split(command)), f"{place}: {command}"


def test_flags_of_commands_in_the_text_exist():
    known = {
        flag for action in create_parser()._subparsers._group_actions for flag in _flags(action)
    }
    for page in (*PAGES, ROOT / "README.md"):
        for command in _INLINE.findall(page.read_text(encoding="utf-8")):
            words = shlex.split(re.sub(r"[\[\]]", "", command))
            if words[0] != "marco":
                assert not check(words), f"{page.name}: {command}"
            for word in words:
                if words[0] == "marco" and re.match(r"--(?!config\.)\w", word):
                    assert word.partition("=")[0] in known, f"{page.name}: {command}"


def _flags(action):
    for parser in action.choices.values():
        for option in parser._actions:
            yield from option.option_strings


def test_every_block_of_commands_or_code_has_a_mark():
    for block in BLOCKS:
        if block.language in (*SHELL, *CODE):
            assert block.kind, f"{block.place}: put <!-- run -->, file: or needs: above it"
        if block.kind == "needs":
            wants = [item.strip() for item in block.value.split(",")]
            assert set(wants) <= set(NEEDS), f"{block.place}: {block.value} is none of {NEEDS}"
        if block.kind == "run" and block.language in SHELL:
            assert block.value == "slow", f"{block.place}: commands run in the slow tests"


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.kind == "run" and b.language in CODE], ids=lambda b: b.place
)
def test_a_snippet_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = [(table, dict(table)) for table in (BENCHMARKS, FORMS, LANGUAGES)]
    try:
        exec(compile(block.text, str(DOCS / block.page), "exec"), {"__name__": "snippet"})
    finally:
        # What a snippet adds to the package is gone after it.
        for table, before in tables:
            table.clear()
            table.update(before)


def test_the_messages_of_troubleshooting_stand_in_the_source():
    """A quoted message, placeholders as "...", is made of pieces that one module holds."""
    quoted = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 20
    rooms = ("marco_jax", "experiments")
    sources = [_joined(path) for room in rooms for path in (ROOT / room).rglob("*.py")]
    for message in quoted:
        pieces = [piece.strip() for piece in message.split("...") if piece.strip()]
        assert any(all(piece in text for piece in pieces) for text in sources), message


def _joined(path):
    """The source with the parts of a message that is written over several lines put together."""
    return re.sub(r"""["']\s*\n\s*f?["']""", "", path.read_text(encoding="utf-8"))


def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "index.html").is_file()


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """The folder of a reader who has followed the first page: configs, and a small run."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(ROOT / "configs")
    _follow("index.md", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p.name for p in PAGES if any(b.value == "slow" for b in BLOCKS if b.page == p.name)]
)
def test_the_commands_of_a_page_run(page, reader):
    if page != "index.md":  # the fixture has followed it
        _follow(page, reader)


def _follow(page, folder):
    """Writes the files of a page and runs its commands, from its top to its end."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    for block in (b for b in BLOCKS if b.page == page):
        if block.kind == "file":
            (folder / block.value).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.value).write_text(block.text, encoding="utf-8")
        if (block.kind, block.value) != ("run", "slow"):
            continue
        for command in block.commands:
            words = _small(shlex.split(command), folder)
            ran = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
            )
            assert ran.returncode == 0, f"{block.place}: {command}\n{ran.stdout}\n{ran.stderr}"


def _small(words, folder):
    """The same command by this Python, at a size that takes seconds."""
    words = words[1:] if words[0] == "marco" else words[3:]
    size = list(SMALL_FLAGS.get(words[0], ()))
    if words[0] == "train":
        given = {word.removeprefix("--config.").partition("=")[0] for word in words}
        config = next(word.partition("=")[2] for word in words if word.startswith("--config="))
        if not load_config(str(ROOT / config)).evaluation.tasks:
            given.add("evaluation.tasks")
        size = [f"--config.{item}" for item in SMALL if _is_small(item, given)]
        brings_tokenizer = given & {"init_from", "tokenizer.vocab_size", "tokenizer.path"}
        if (folder / FIRST_TOKENIZER).is_dir() and not brings_tokenizer:
            size.append(f"--config.tokenizer.path={FIRST_TOKENIZER}")
    return [sys.executable, "-m", "marco_jax", *words, *size]


def _is_small(item, given):
    """Whether a size holds: steps always; what a page sets otherwise is the page's."""
    name = item.partition("=")[0]
    return name == "steps" or name not in given
