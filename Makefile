# Blindpost's workshop. `make help` lists the targets; all of them run from a plain checkout with Python and venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# Left empty means two test processes; `make test WORKERS=0` runs the tests in one.
WORKERS ?= 2
# Further arguments for pytest: `make test ARGS='-k receipt'`.
ARGS ?=
# Branch coverage in per cent of wire, keys, relay.core and audit, below which `make test` fails.
COVERAGE_MIN ?= 95
# The resolver of `make lock`; it lives in a venv of its own and is no dependency of anything else.
LOCKER := uv==0.13.9

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format coverage-gate system-packages lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with exactly what requirements.lock names

$(STAMP): requirements.lock pyproject.toml
	@PYTHON='$(PYTHON)' VENV='$(VENV)' bash .ci/venv
	@touch $@

demo: $(STAMP) ## run the demonstration
	@$(BIN)/blindpost demo

test: $(STAMP) system-packages lint ## everything that CI checks: lint, types, import rules, tests, coverage
	$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report= $(ARGS)
	@$(MAKE) --no-print-directory coverage-gate

lint: $(STAMP) ## ruff, mypy --strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: $(STAMP) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage-gate: $(STAMP) ## fail if the last `make test` covered too few branches
	$(BIN)/coverage report --fail-under=$(COVERAGE_MIN)

system-packages: # the broker and the browser that some tests use, where they can be had
	@bash .ci/system-packages

# --universal: one lock for every Python from 3.11 and every platform, with markers where they differ.
# Present pins are kept; `make lock LOCK_ARGS=--upgrade` moves them.
lock: ## resolve pyproject.toml into requirements.lock again
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet '$(LOCKER)'; }
	.venv-lock/bin/uv --no-config pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--quiet $(LOCK_ARGS) --output-file requirements.lock

clean: ## remove what make and the tools have made
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage .coverage.* build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
