# Every target makes what it needs: a fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CASE ?= all
STAMP := $(VENV)/.stamp
WEB := federation/web/dist/app.js
WEB_SOURCES := $(wildcard federation/web/src/* federation/web/src/*/*) federation/web/package.json federation/web/package-lock.json federation/web/build.py

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kubernetes test check bench format lock schemas web docs testbed clean

help: ## this text
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m placement >/dev/null
	@touch $@

setup: $(STAMP) ## make .venv with everything the other targets need

$(WEB): $(STAMP) $(WEB_SOURCES)
	$(BIN)/python federation/web/build.py

web: $(WEB) ## build the latency map from its npm packages

testbed: $(STAMP) ## build the real Kubernetes binaries (once; cached outside the tree)
	$(BIN)/python -m tests.testbed build

demo: $(STAMP) $(WEB) ## a day of the world in ten minutes, with the map; ARGS="--for 60s --json"
	@$(BIN)/isochrone demo $(ARGS)

demo-kubernetes: $(STAMP) $(WEB) testbed ## the product on three real Kubernetes control planes
	$(BIN)/python -m tests.testbed demo $(ARGS)

docs: $(STAMP) ## build the documentation in docs/_build/html; a warning fails it
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html

check: $(STAMP) ## format, lint, types, import contracts, the map's types and tests, docs, and the unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python federation/web/build.py --check
	$(MAKE) --no-print-directory docs
	$(BIN)/pytest -q -n 2 -m "not slow and not real" tests/unit tests/wire $(ARGS)

test: $(STAMP) $(WEB) ## every test, real components included where they can be had
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python federation/web/build.py --check
	$(MAKE) --no-print-directory docs
	$(BIN)/python -m tests.testbed build
	$(BIN)/pytest $(ARGS)

bench: $(STAMP) ## one JSON line per result: make bench CASE=name
	@$(BIN)/python -m tests.bench $(CASE)

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python federation/web/build.py --format

schemas: $(STAMP) ## generate from the code: configs/schemas, and the types of the map
	$(BIN)/python -m federation.policy.schema configs/schemas
	$(BIN)/python -m federation.api.typescript federation/web/src/views.ts

lock: ## write the hash-locked requirements from pyproject.toml
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 -o requirements.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --extra dev -o requirements-dev.txt pyproject.toml

clean: ## remove what make made in this directory
	rm -rf $(VENV) docs/_build federation/web/dist federation/web/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
