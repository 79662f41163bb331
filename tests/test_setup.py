"""What setup.py declares is what the package imports, extra by extra, and the other way round."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import runpy
import subprocess
import sys
import unittest.mock

import pytest

from marco_jax.extras import EXTRAS

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORE = "core"
# Names of distributions of modules that are called otherwise.
DISTRIBUTIONS = {
    "google": "protobuf",
    "orbax": "orbax-checkpoint",
    "allauth": "django-allauth",
    "rest_framework": "djangorestframework",
    "mlflow": "mlflow-skinny",
}
# Modules whose imports need an extra, wherever in the file they stand.
USERS = {
    "marco_jax/curation/": "curation",
    "marco_jax/data/builtin_sources.py": "demo",
    "marco_jax/data/knowledge.py": "demo",
    # Names of languages in the source's or the target's own language.
    "marco_jax/data/templates.py": "demo",
    "marco_jax/trackers/wandb_tracker.py": "wandb",
    "marco_jax/trackers/mlflow_tracker.py": "mlflow",
    "marco_jax/lm_eval.py": "harness",
    "marco_jax/evaluation/lm_eval_adapter.py": "harness",
    "marco_jax/ablation/trees.py": "sweep",
    "marco_jax/model/quantized.py": "quantize",
}
# What is declared and imported nowhere in the packages.
NOT_IMPORTED = {
    CORE: {"importlib-resources": "tensorflow-datasets imports it and does not ask for it"},
    "demo": {
        name: "the default corpus reads its files"
        for name in ("django", "djangorestframework", "django-allauth")
    },
    "plan": {"jax[tpu]": "its extra brings libtpu; topology.py looks whether it is there"},
    "curation": {"lxml-html-clean": "trafilatura imports it by way of justext"},
    "gcs": {"gcsfs": "fsspec imports it; connect.py looks whether it is there"},
    "s3": {"s3fs": "fsspec imports it; connect.py looks whether it is there"},
    "hf": dict.fromkeys(("transformers", "gguf"), "reads what `marco export` writes"),
}
# What an extra of another distribution is there for.
BROUGHT = {"jax[tpu]": "libtpu"}
ROOMS = ("marco_jax", "experiments", "configs")


@pytest.fixture(scope="module")
def given():
    """The arguments of `setup`."""
    setuptools = unittest.mock.MagicMock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", setuptools)
        runpy.run_path(str(ROOT / "setup.py"))
    return setuptools.setup.call_args.kwargs


@pytest.fixture(scope="module")
def declared(given):
    """Names of distributions by extra, "core" for what is always installed."""
    lists = {CORE: given["install_requires"], **given["extras_require"]}
    return {extra: {name_of(line) for line in lines} for extra, lines in lists.items()}


def name_of(requirement):
    """The distribution of a requirement, as registries spell it, with its extra."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+(\[\w+\])?", requirement)[0]).lower()


def distribution_of(module):
    if module in DISTRIBUTIONS:
        return DISTRIBUTIONS[module]
    return name_of(installed().get(module, [module])[0])


installed = functools.cache(importlib.metadata.packages_distributions)


def imported():
    """(file, distribution) of every import of a package that is neither ours nor Python's."""
    ours = {"marco_jax", "experiments", *sys.stdlib_module_names}
    for file in (file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                if (top := name.partition(".")[0]) not in ours:
                    yield file.relative_to(ROOT).as_posix(), distribution_of(top)


IMPORTED = sorted(set(imported()))


def extra_of(file):
    """The extra that a file may use besides core."""
    return next(
        (extra for place, extra in USERS.items() if file.startswith(place) or file.endswith(place)),
        None,
    )


@pytest.mark.parametrize(("file", "distribution"), IMPORTED, ids="-".join)
def test_what_is_imported_is_declared_where_its_user_finds_it(file, distribution, declared):
    if distribution in declared[CORE]:
        return
    extra = extra_of(file)
    assert extra, f"{file} imports {distribution}: declare it in setup.py, in core or in an extra"
    assert distribution in declared[extra], f"{distribution} is not in the extra {extra!r}"


@pytest.mark.parametrize("extra", [CORE, *EXTRAS])
def test_what_is_declared_is_imported_or_has_a_reason(extra, declared):
    used = {
        distribution
        for file, distribution in IMPORTED
        if distribution in declared[CORE] or extra_of(file) == extra
    }
    reasons = NOT_IMPORTED.get(extra, {})
    assert declared[extra] - used == set(reasons)


def test_every_file_of_the_package_that_is_not_a_module_is_in_the_wheel(given):
    declared = {
        file
        for package, patterns in given["package_data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = {file for file in (ROOT / "marco_jax").rglob("*") if file.is_file()}
    assert declared == {file for file in files if file.suffix not in (".py", ".pyc")}
    assert {"base.html.jinja", "run.html.jinja"} <= {file.name for file in declared}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_table_of_extras_has_the_modules_of_what_is_declared(extra, declared):
    modules = {distribution_of(module) for module in EXTRAS[extra].modules}
    brought = {BROUGHT.get(name, name) for name in declared[extra]}
    assert modules == brought - {"lxml-html-clean"}


def test_all_is_every_extra_that_a_user_may_want_at_run_time(declared):
    assert declared["all"] == set().union(*(declared[extra] for extra in EXTRAS))
    assert set(declared) == {CORE, "all", "tpu", "gpu", "docs", "test", *EXTRAS}
    # mlflow-skinny needs an older importlib_metadata than constraints.txt has.
    for extra in set(EXTRAS) - {"wandb", "mlflow"}:
        assert declared[extra] <= declared["test"]


def test_no_distribution_is_declared_twice(declared):
    for extra in EXTRAS:
        assert not declared[extra] & declared[CORE]


BLOCKED = """
import importlib, importlib.abc, pkgutil, sys
import marco_jax.extras

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name.partition(".")[0] in e.modules for e in marco_jax.extras.EXTRAS.values()):
            raise ModuleNotFoundError(f"no {name} here", name=name)

sys.meta_path.insert(0, Blocker())
"""
IMPORT_CORE = """
rooms = tuple(sys.argv[1:])
for package in ("marco_jax", "experiments"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.startswith(rooms) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
QWEN2_ALONE = """
from marco_jax.tokenizers.tokenizer import qwen2_tokenizer
from tokenizers import pre_tokenizers
letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
qwen2_tokenizer(letters, []).encode("text")
assert not {"sentencepiece", "google.protobuf"} & set(sys.modules)
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_core_imports_where_no_extra_is_installed(trials):
    done = python(BLOCKED + IMPORT_CORE, *trials.ROOMS)
    assert done.returncode == 0, done.stderr


def test_a_byte_level_tokenizer_needs_no_sentencepiece():
    done = python("import sys" + QWEN2_ALONE)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def trials(monkeypatch):
    """tests/install/trials.py, what `make check-install` runs."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/install"))
    import trials

    return trials


def test_every_extra_is_installed_or_resolved_by_check_install(trials, declared):
    assert {*trials.USER, *trials.RESOLVED, trials.ALL, trials.CORE} == set(declared)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LAUNCHERS = [ROOT / "Makefile", *sorted((ROOT / "experiments/pods").glob("*"))]


def test_every_line_that_installs_is_one_that_check_install_tries(trials):
    known = {*trials.USER, *trials.RESOLVED, trials.ALL}
    found = []
    for page in (*PAGES, *(file for file in LAUNCHERS if file.is_file())):
        text = page.read_text(encoding="utf-8")
        assert "marco_jax[" not in text, (
            f"{page.name}: no index has marco_jax: pip install -e '.[..]'"
        )
        for extras in re.findall(r"(?<=[ '])\.\[([\w,]+)\]", text):
            found.append(page.name)
            assert set(extras.split(",")) <= known, f"{page.name}: {extras}"
    assert {"README.md", "curation.md", "Makefile", "host.sh", "Dockerfile"} <= set(found)
