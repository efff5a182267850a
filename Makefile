# Everything a fresh clone needs: `make demo` and `make test` on Python 3.11 and make.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH  := build/bench
FUZZ   := build/fuzz
CODE   := src tests benchmarks examples

.PHONY: help demo run test simulate mutants lint format bench fuzz page chromium lock clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml
	@echo "setting up $(VENV) (once; a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --only-binary=:all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## the main job against an offline exchange (DEMO_SECONDS=150 ends it by itself)
	@$(BIN)/klagg demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

run: $(READY) ## the service against the real exchange (ARGS="--symbols BTCUSDT")
	@$(BIN)/klagg run $(ARGS)

lint: $(READY) ## format check, lint, types, import contracts
	@$(BIN)/ruff format --check --quiet $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## format and mend what can be mended
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

test: lint $(if $(CI),chromium) ## all checks and tests
	@$(BIN)/pytest $(ARGS)

simulate: $(READY) ## worlds with faults on virtual time (SEEDS=500 FIRST=0 JOBS=2, or SEED=17 for one with its log)
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),500) --first $(or $(FIRST),0) $(if $(JOBS),--jobs $(JOBS)) $(ARGS))

mutants: $(READY) ## deliberate defects, each in a copy of the sources, and the check that must catch it (ONLY=serve, JOBS=2)
	@PYTHONPATH=tests $(BIN)/python -m mutants --jobs $(or $(JOBS),2) --only "$(ONLY)"

bench: $(READY) ## the figures of docs/PERFORMANCE.md, one JSON line each
	@# In an environment of its own: the peer wants older libraries than the tests have.
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --require-hashes --only-binary=:all: -r requirements/bench.txt
	@PYTHONPATH=src $(BENCH)/bin/python -m benchmarks --write docs/PERFORMANCE.md

fuzz: ## the decoders under atheris (SECONDS=60 for each target, TARGETS="wire rows" for some of them)
	@# In an environment of its own: atheris comes for few versions of Python.
	@test -x $(FUZZ)/bin/python || $(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --require-hashes --only-binary=:all: -r requirements/fuzz.txt
	@PYTHONPATH=src:tests $(FUZZ)/bin/python -m fuzz.run $(or $(SECONDS),60) $(TARGETS)

page: ## build the page from page/ into the package (needs Node 20 or later)
	@cd page && npm ci --silent && npm run --silent build

chromium: ## install the browser of the browser tests, where there is none and apt may be used
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing chromium for the browser tests"; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null || \
	    echo "chromium could not be installed: the browser tests are skipped"; \
	  fi

lock: $(READY) ## renew the locked dependencies
	@$(BIN)/python -m pip install --quiet uv
	@# What runs is locked last, in the versions that are tested.
	@for target in "dev:--group dev" "bench:--extra bench" "fuzz:--group fuzz" "run:--constraints requirements/dev.txt"; do \
	  $(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate $${target#*:} -o requirements/$${target%%:*}.txt; done

clean: ## remove what the targets made
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
