"""The rooms of the package, what they import, and the map of CONTRIBUTING.md.

python -m tests.house    # writes the map anew
"""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "marco_jax"
# A room imports rooms of lower floors, and of its own floor those that do not import it back.
FLOORS = {
    "commands": 9,
    "__main__": 9,
    "lm_eval": 9,
    "ablation": 8,
    "planning": 8,
    "lanes": 8,
    "training": 7,
    "weights": 6,
    "reports": 5,
    "reinforcement": 5,
    "evaluation": 4,
    "decoding": 3,
    "objectives": 3,
    "trackers": 3,
    "data": 3,
    "curation": 2,
    "model": 2,
    "tokenizers": 2,
    "runtime": 1,
    "languages": 1,
    "flat_fields": 1,
    "ngrams": 1,
    "files": 1,
    "mapped_files": 1,
    "appended_files": 1,
    "stores": 1,
    "extras": 1,
}
_BEGIN, _END = "<!-- map: `python -m tests.house` writes it -->\n", "<!-- end of map -->"


def product_files():
    """The Python files of the package, without tests."""
    return sorted(PACKAGE.rglob("*.py"))


def room_of(file):
    """The room of a file: a folder of the package, or a file at its top."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(file):
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (
                [f"{module}.{alias.name}" for alias in node.names]
                if module == "marco_jax"
                else [module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_imports():
    """For each room the other rooms that it imports."""
    found = {room: set() for room in FLOORS}
    for file in product_files():
        room = room_of(file)
        if room == "__init__":
            continue
        for name in imported_modules(file):
            package, _, rest = name.partition(".")
            if package == "marco_jax" and rest:
                found[room].add(rest.partition(".")[0])
        found[room].discard(room)
    return found


def house_map():
    """A table of the rooms, from the top, and the rooms that each imports."""
    imports = room_imports()
    lines = ["| Floor | Room | Holds | Imports |", "|---|---|---|---|"]
    for room, floor in sorted(FLOORS.items(), key=lambda item: (-item[1], item[0])):
        path = PACKAGE / room
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        holds = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))).partition("\n")[0]
        name = f"`{room}/`" if path.is_dir() else f"`{room}.py`"
        below = sorted(imports[room], key=lambda other: (-FLOORS[other], other))
        lines.append(f"| {floor} | {name} | {holds} | {', '.join(below)} |")
    return "\n".join(lines) + "\n"


def written_map():
    """The map that CONTRIBUTING.md has."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.partition(_BEGIN)[2].partition(_END)[0]


def write_map():
    """Replaces the map of CONTRIBUTING.md."""
    path = ROOT / "CONTRIBUTING.md"
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    path.write_text(f"{before}{_BEGIN}{house_map()}{_END}{after}", encoding="utf-8")


def forbidden_words():
    """Patterns of words that the glossary replaces, each with what to write."""
    return {
        r"\bdoublets?\b": "duplicate",
        r"\blearnt\b": "trained on, loss mask, target token",
        r"(?<!decimal )\bplaces\b": "positions",
        r"\bfigures?\b": "metric, number or chart",
        r"\bbeginnings\b": "prefixes or hypotheses",
        r"(?i)\b(the|document) separator\b": "EOS",
        r"\b(?:is|are|was|were) (?:said|told)\b": "logged, reported",
        r"(?<!there )(?<!There )\b(?:is|are) no (?!longer|more|less|fewer)\w": "is not",
        r"\bforetell": "predict",
    }


def occurrences(pattern, files):
    """Locations at which a pattern occurs in files."""
    found = []
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if re.search(pattern, line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


if __name__ == "__main__":
    write_map()
