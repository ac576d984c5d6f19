# Everything a person or CI runs. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export PYTHON
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
# Wheels only: nothing is compiled, so no compiler is needed and setup is quick.
INSTALL := $(PIP) install --require-hashes --only-binary :all:
# No build isolation: setuptools is in the lock, so this fetches nothing.
INSTALL_SELF := $(PIP) install --no-deps --no-build-isolation --no-index --editable .
CODEX := 0.169.0
# openai-node, and what it makes WebSockets with.
OPENAI_NODE := openai@7.57.0 ws@8.23.0
# Tests wait for processes half of the time. A file stays with one worker, as what
# its tests share does; files start in their order, the longest first.
TWO_AT_ONCE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
FUZZ_SECONDS ?= 600
LAB ?= ../shared/docker-lab/lab

# Unit tests are many and short: a worker that is done takes some of the other's.
UNIT := tests/unit --numprocesses 2 --dist worksteal
REST := tests/acceptance tests/integration
# With MEASURE=1 tests leave what they covered in .coverage, also by their processes.
RUN_TESTS = $(BIN)/python $(if $(MEASURE),-m coverage run) -m pytest
# Of services and libs, by the whole suite; by unit tests alone: in pyproject.toml.
WHOLE_FLOOR := 90

.PHONY: help setup setup-test setup-codex setup-node run unit test check lint coverage coverage-rest coverage-all format bench fuzz attack audit chaos lock lab clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/.run-stamp ## make .venv with what `make run` needs

setup-test: $(VENV)/.test-stamp ## the same, with what tests and checks need

setup-codex: $(VENV)/.codex-stamp ## install Codex for the acceptance tests (npm)

setup-node: $(VENV)/.node-stamp ## install openai-node for the acceptance tests (npm)

$(VENV)/bin/python:
	@VENV=$(VENV) bash deploy/make-venv.sh

$(VENV)/.run-stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what the services need into $(VENV) ..."
	@$(INSTALL) -r requirements.lock
	@$(INSTALL_SELF)
	@touch $@

$(VENV)/.test-stamp: requirements-dev.lock $(VENV)/.run-stamp
	@echo "installing what the tests need into $(VENV) ..."
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

$(VENV)/.codex-stamp: | $(VENV)/bin/python
	@bash deploy/ensure-debian.sh npm:npm node:nodejs
	@echo "installing Codex $(CODEX) into $(VENV)/codex ..."
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/codex @openai/codex@$(CODEX)
	@touch $@

$(VENV)/.node-stamp: | $(VENV)/bin/python
	@bash deploy/ensure-debian.sh npm:npm node:nodejs
	@echo "installing $(OPENAI_NODE) into $(VENV)/node ..."
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/node $(OPENAI_NODE)
	@touch $@

# Through launch: it ends with make, even if make is killed outright.
run: $(VENV)/.run-stamp ## start everything in the foreground; Ctrl-C stops it
	@exec $(BIN)/python -P -m libs.cli.process.launch $(BIN)/responses-proxy up

unit: $(VENV)/.test-stamp ## unit tests alone, for the edit loop; ARGS="-k word" for some
	@exec $(BIN)/python -m pytest $(UNIT) --quiet $(ARGS)

test: $(VENV)/.test-stamp $(VENV)/.codex-stamp $(VENV)/.node-stamp ## unit, integration and acceptance tests; ARGS="-k word" or SUITE=folder for some
ifdef ARGS
	@exec $(BIN)/python -m pytest $(ARGS)
else
	@status=0; \
	$(BIN)/python -m pytest -m alone $(SUITE) || status=$$?; \
	$(RUN_TESTS) -m "not alone" $(TWO_AT_ONCE) $(SUITE) || status=$$?; \
	exit $$status
endif

check: lint coverage ## lint, and the unit tests with their coverage

coverage: $(VENV)/.test-stamp ## unit tests, and that they cover what they should
	@rm -rf .coverage && mkdir .coverage
	@$(BIN)/python -m coverage run -m pytest $(UNIT) --quiet
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

coverage-rest: ## after `make coverage`: the other tests, and the coverage of all
	@$(MAKE) --no-print-directory test MEASURE=1 SUITE="$(or $(SUITE),$(REST))"
	@$(BIN)/python -m coverage combine --quiet --append
	@$(BIN)/python -m coverage report --fail-under=$(WHOLE_FLOOR)

coverage-all: ## coverage of the whole suite
	@$(MAKE) --no-print-directory coverage
	@$(MAKE) --no-print-directory coverage-rest

lint: $(VENV)/.test-stamp ## format, lint, types, dependency rules
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: $(VENV)/.test-stamp ## format the code and fix what ruff can
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.test-stamp ## measure throughput and overhead
	@test -f bench/__main__.py || { echo "there is no benchmark yet"; exit 1; }
	@exec $(BIN)/python -m bench $(ARGS)

fuzz: $(VENV)/.test-stamp ## fuzz what reads bytes of others; FUZZ_SECONDS=600
	@exec $(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

attack: $(VENV)/.test-stamp ## attack a running stack, print docs/security-tests.md's table
	@exec $(BIN)/python -m tests.attack $(ARGS)

audit: $(VENV)/.run-stamp ## compare the lock files with an advisory database
	@VENV=$(VENV) bash deploy/audit.sh

chaos: $(VENV)/.test-stamp ## kill everything under load, compare the books (minutes)
	@exec $(BIN)/python -m bench.chaos $(ARGS)

# Hashes, no index addresses: the lock is the same whatever mirror made it.
LOCK = UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --generate-hashes \
	--universal --python-version 3.11 --no-header --no-emit-index-url

lock: $(VENV)/.test-stamp ## resolve requirements*.lock anew
	@test -x $(BIN)/uv || $(PIP) install uv
	@$(LOCK) --upgrade --extra dev -o requirements-dev.lock pyproject.toml
	@$(LOCK) -c requirements-dev.lock -o requirements.lock pyproject.toml

lab: ## build the images, run compose with two gateways, ask through them
	@LAB=$(LAB) bash tests/lab/run.sh

clean: ## remove .venv and caches
	@rm -rf $(VENV) .pytest_cache .coverage .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
