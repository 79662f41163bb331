"""The rules of the house that a reader relies on: rooms, sizes of files and functions, names."""

import ast
import collections
import re

import pytest

from tests.house import (
    FLOORS,
    PACKAGE,
    ROOT,
    forbidden_words,
    house_map,
    imported_modules,
    occurrences,
    product_files,
    room_imports,
    room_of,
    written_map,
)

SOURCES = [
    *product_files(),
    *(
        file
        for folder in ("experiments", "configs", "benchmarks")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ),
]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Functions that are tables of data: the fields of configs.
TABLES = {"training_config", "get_config"}


def test_no_room_imports_one_above_it():
    upward = [
        f"{room} imports {other}"
        for room, others in room_imports().items()
        for other in others
        if FLOORS[other] > FLOORS[room]
    ]
    assert not upward


def test_no_two_rooms_import_each_other():
    imports = room_imports()
    mutual = [(a, b) for a in imports for b in imports[a] if a < b and a in imports[b]]
    assert not mutual
    assert "decoding" not in imports["data"] and "data" not in imports["decoding"]


def test_orbax_beam_and_tensorflow_stay_in_their_rooms():
    rooms = {
        "orbax": {"weights"},
        "apache_beam": {"curation"},
        "tensorflow": {"data"},
        "seqio": {"data"},
    }
    strangers = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in product_files()
        for name in imported_modules(file)
        if room_of(file) not in rooms.get(name.partition(".")[0], {room_of(file)})
    ]
    assert not strangers


def test_no_file_of_the_package_imports_what_is_not_installed_with_it():
    outside = {"experiments", "benchmarks", "configs", "tests"}
    users = [
        str(file.relative_to(ROOT))
        for file in product_files()
        if outside & {name.partition(".")[0] for name in imported_modules(file)}
    ]
    assert not users


def test_the_map_shows_the_rooms_as_they_are():
    assert written_map() == house_map(), "write it anew: python -m tests.house"


def test_the_files_that_a_batch_passes_are_few_and_the_readme_lists_them():
    story = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where to read")[2]
    story = story.partition("Then the kernels")[0]
    files, room = [], ROOT
    for name in re.findall(r"`([\w/]+\.py)`", story):
        if "/" in name:
            base = ROOT if (ROOT / name).exists() else PACKAGE
            room = (base / name).parent
        files.append(room / name.rpartition("/")[2])
    missing = [str(file) for file in files if not file.exists()]
    assert not missing
    assert len(files) == len(set(files)) <= 25


def test_training_is_left_with_the_loop():
    assert len(list((PACKAGE / "training").glob("*.py"))) <= 20


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_short(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds)
        and node.end_lineno - node.lineno >= 80
        and node.name not in TABLES
    ]
    assert not long


def test_no_name_stands_for_two_things():
    named = collections.defaultdict(set)
    for file in product_files():
        if file.name not in ("__init__.py", "__main__.py"):
            named[file.name].add(str(file))
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_":
                named[node.name].add(str(file))
    twice = {name: files for name, files in named.items() if len(files) > 1 and name != "main"}
    assert not twice


@pytest.mark.parametrize("pattern", forbidden_words())
def test_one_word_for_one_thing(pattern):
    texts = [file for file in TEXTS if file.name != "glossary.md"]
    found = occurrences(pattern, [*SOURCES, *texts])
    assert not found, f"write {forbidden_words()[pattern]}"
