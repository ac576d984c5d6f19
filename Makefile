# Everything that developers and CI run. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

export PYTHON
# Compiling all modules again takes some 8 s of `make check`.
unexport PYTHONDONTWRITEBYTECODE
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
# Wheels only: setup needs no compiler and is quick.
INSTALL := $(PIP) install --require-hashes --only-binary :all:
# Without build isolation, because setuptools is in the lock: nothing is downloaded.
INSTALL_SELF := $(PIP) install --no-deps --no-build-isolation --no-index --editable .
CODEX := 0.171.0
# openai-node, and its WebSocket library.
OPENAI_NODE := openai@7.59.0 ws@8.23.0
# Tests wait for processes more than half of the time, so four workers fit on two cores.
# All tests of a file, and of some folders (tests/conftest.py), run in one worker, which has
# its fixtures; files start in order, the longest first.
WORKERS ?= 4
IN_PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
FUZZ_SECONDS ?= 600
# The image's, unless another is named.
PYTHON_VERSION ?= $(shell sed -nE 's/^FROM python:([0-9.]+)-slim AS build$$/\1/p' Dockerfile)
IMAGE ?= agent-responses-proxy
LAB ?= ../shared/docker-lab/lab

# Unit tests are many and short: an idle worker takes over some of the other's.
UNIT := tests/unit --numprocesses 2 --dist worksteal
REST := tests/acceptance tests/integration
COMPILED_TESTS := $(addprefix tests/integration/,proxy server websocket ledger upstream security) tests/unit
# MEASURE=1 records coverage in .coverage, also of the processes that tests start.
RUN_TESTS = $(BIN)/python $(if $(MEASURE),-m coverage run) -m pytest
# Percent of services and libs that the whole suite must cover. The floor of the unit
# tests is in pyproject.toml.
WHOLE_FLOOR := 90

.PHONY: removed-by-uv help setup setup-test setup-codex setup-node compile uncompile run unit test test-compiled test-python check lint coverage coverage-rest coverage-all format bench fuzz attack audit chaos lock image sbom lab clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(VENV)/.run-stamp ## create .venv with everything `make run` needs

setup-test: $(VENV)/.test-stamp ## the same, with everything tests and checks need

setup-codex: $(VENV)/.codex-stamp ## install Codex for the acceptance tests (npm)

setup-node: $(VENV)/.node-stamp ## install openai-node for the acceptance tests (npm)

$(VENV)/bin/python:
	@VENV=$(VENV) bash deploy/make-venv.sh

$(VENV)/.run-stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what the services need into $(VENV) ..."
	@$(INSTALL) -r requirements.lock
	@$(INSTALL_SELF)
	@touch $@

# Again also after `uv sync`, which removes what only the tests need.
$(VENV)/.test-stamp: requirements-dev.lock $(VENV)/.run-stamp $(if $(wildcard $(BIN)/pytest),,removed-by-uv)
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

# Through launch, so that it ends with make, even if make is killed.
run: $(VENV)/.run-stamp ## start everything in the foreground; Ctrl-C stops it
	@exec $(BIN)/python -P -m libs.cli.process.launch $(BIN)/responses-proxy up

# Everything else works without it. The old products go first: a module that left the list
# must not stay compiled.
compile: $(VENV)/.test-stamp uncompile ## compile the hot path in place; needs a C compiler, takes minutes
	@headers=$$($(BIN)/python -c 'import sysconfig as s; print(s.get_path("include"))'); \
	  dev=$$(basename $$headers); [[ -e $$headers/Python.h ]] && dev=; \
	  bash deploy/ensure-debian.sh gcc:gcc \
	    $${dev:+$$dev-config:$$dev-dev}
	@echo "compiling the modules of [tool.compiled] in pyproject.toml ..."
	@PROXY_COMPILE=1 $(BIN)/python setup.py --quiet build_ext --inplace

uncompile: ## remove what `make compile` made
	@find libs services -name '*.so' -delete
	@rm -rf libs/compiled*.json build/mypyc build/temp.*

unit: $(VENV)/.test-stamp ## run the unit tests; ARGS="-k word" selects some
	@exec $(BIN)/python -m pytest $(UNIT) --quiet $(ARGS)

test: $(VENV)/.test-stamp $(VENV)/.codex-stamp $(VENV)/.node-stamp ## run all tests; ARGS="-k word" or SUITE=folder selects some, WORKERS=4
ifdef ARGS
	@exec $(BIN)/python -m pytest $(ARGS)
else
	@status=0; \
	alone=$$(grep -rl --include='test_*.py' 'pytest\.mark\.alone' $(or $(SUITE),tests)); \
	[[ -z $$alone ]] || $(BIN)/python -m pytest -m alone $$alone || status=$$?; \
	$(RUN_TESTS) -m "not alone" $(IN_PARALLEL) $(SUITE) || status=$$?; \
	exit $$status
endif

# The tests that run what is compiled. The first line fails if `python -P`, as the services
# are started, does not find it.
test-compiled: compile ## compile, run the unit tests and the gateway's integration tests, uncompile
	@status=0; \
	$(BIN)/python -Pc 'from services.gateway.proxy import relay; assert relay.__file__.endswith(".so")' && \
	$(BIN)/python -m pytest -m "not alone and not interpreted" $(IN_PARALLEL) $(COMPILED_TESTS) || status=$$?; \
	$(MAKE) --no-print-directory uncompile; \
	exit $$status

# In build/python-VERSION, on a copy of this checkout.
test-python: ## the same on another Python, then the unit tests interpreted; PYTHON_VERSION=3.14
	@bash tests/pythons/run.sh $(PYTHON_VERSION)

# Both at once; the output of each is printed when it ends.
check: $(VENV)/.test-stamp ## lint, and unit tests with the coverage floor
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint coverage

coverage: $(VENV)/.test-stamp ## run the unit tests and check their coverage
	@rm -rf .coverage && mkdir .coverage
	@$(BIN)/python -m coverage run -m pytest $(UNIT) --quiet
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

coverage-rest: ## after `make coverage`: the other tests, and the total coverage
	@$(MAKE) --no-print-directory test MEASURE=1 SUITE="$(or $(SUITE),$(REST))"
	@$(BIN)/python -m coverage combine --quiet --append
	@$(BIN)/python -m coverage report --fail-under=$(WHOLE_FLOOR)

coverage-all: ## run the whole suite and check its coverage
	@$(MAKE) --no-print-directory coverage
	@$(MAKE) --no-print-directory coverage-rest

lint: $(VENV)/.test-stamp ## check format, style, types and dependency rules
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile

format: $(VENV)/.test-stamp ## format the code and fix what ruff can
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.test-stamp ## measure throughput and overhead
	@exec $(BIN)/python -m bench $(ARGS)

fuzz: $(VENV)/.test-stamp ## fuzz the parsers of external input; FUZZ_SECONDS=600
	@exec $(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

attack: $(VENV)/.test-stamp ## attack a running stack; print the table of docs/security-tests.md
	@exec $(BIN)/python -m tests.attack $(ARGS)

audit: $(VENV)/.run-stamp ## look the lock files up in an advisory database
	@VENV=$(VENV) bash deploy/audit.sh

chaos: $(VENV)/.test-stamp ## kill all processes under load, then check the ledger (minutes)
	@exec $(BIN)/python -m bench.chaos $(ARGS)

# Hashes without index addresses: the lock does not depend on the mirror.
LOCK = UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --generate-hashes \
	--universal --python-version 3.11 --no-header --no-emit-index-url

# What compiling needs beside requirements.lock: mypyc, and the types of an extra.
lock: $(VENV)/.test-stamp ## upgrade requirements*.lock
	@$(LOCK) --upgrade --extra dev -o requirements-dev.lock pyproject.toml
	@$(LOCK) -c requirements-dev.lock -o requirements.lock pyproject.toml
	@printf '%s\n' mypy opentelemetry-sdk opentelemetry-exporter-otlp-proto-http | \
	  $(LOCK) -c requirements-dev.lock -o requirements-compile.lock -

# The version is the package's, in pyproject.toml.
image: ## build the image, with its version as label; IMAGE=agent-responses-proxy
	@docker build --build-arg VERSION=$$(sed -nE 's/^version = "([^"]+)".*/\1/p' pyproject.toml) -t $(IMAGE) .

sbom: $(VENV)/.test-stamp ## write the bill of materials of $(IMAGE) to dist/sbom.cdx.json
	@mkdir -p dist
	@docker run --rm -i --network none --read-only --entrypoint python $(IMAGE) - \
	  <scripts/inventory.py >dist/inventory.json
	@$(BIN)/python -m scripts.sbom <dist/inventory.json >dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json: $$(grep -c '"purl"' dist/sbom.cdx.json) packages"

lab: ## build the images, run compose with two gateways, send requests
	@LAB=$(LAB) bash tests/lab/run.sh

clean: uncompile ## remove .venv and caches
	@rm -rf $(VENV) .pytest_cache .coverage .mypy_cache .ruff_cache .import_linter_cache build dist *.egg-info
