# Everything the project needs is installed into .venv and .uv, here in the folder; nothing system-wide.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .uv/bin/uv
RUN := .venv/bin
PYTEST := $(RUN)/python -m pytest
# Tests wait for brokers most of the time: four at once, each on a stack of its own. WORKERS=0 runs them one by one.
WORKERS ?= 4
SPREAD := -n $(WORKERS) --dist loadgroup
export UV_PYTHON_DOWNLOADS := never

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

.PHONY: setup
setup: .venv/.ready ## Install everything into .venv, as locked

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "auditstream needs Python 3.11 or newer; name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .uv || { echo "python3 -m venv failed: on Debian, apt install python3-venv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: $(UV) pyproject.toml uv.lock
	@echo "setting up .venv (the first time this downloads about 400 MB)" >&2
	@$(UV) sync --quiet --frozen --all-extras --python .uv/bin/python
	@touch $@

.PHONY: demo
demo: setup ## Show the main job end to end on a stack of its own
	@$(RUN)/auditstream demo

.PHONY: up
up: setup ## Start the local stack in the background and print where it is
	@$(RUN)/auditstream up --detach

.PHONY: down
down: setup ## Stop the local stack
	@$(RUN)/auditstream down

.PHONY: test
test: setup ## Run unit, integration and browser tests on the local stack
	@$(PYTEST) tests/e2e tests/integration tests/unit $(SPREAD) $(ARGS)

.PHONY: test-quick
test-quick: setup ## Run the tests that need no server, with few examples each: under a minute
	@$(PYTEST) -m "not slow" -n 2 $(ARGS)

.PHONY: test-unit
test-unit: setup ## Run the unit tests alone
	@$(PYTEST) tests/unit $(ARGS)

.PHONY: test-e2e
test-e2e: setup ## Run the browser tests alone; screenshots land in build/screenshots
	@$(PYTEST) tests/e2e $(ARGS)

.PHONY: test-kafka
test-kafka: setup ## Run the integration tests on real Apache Kafka from Maven Central
	@$(PYTEST) tests/integration --backend kafka $(SPREAD) $(ARGS)

.PHONY: test-docker
test-docker: setup ## Run the integration tests on containers, where Docker answers
	@$(PYTEST) tests/integration --backend docker $(ARGS)

.PHONY: bench
bench: setup ## Measure the sink beside the engine's limit; a short one: ONLY=sink EVENTS=200000
	@$(RUN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(EVENTS),--events $(EVENTS)) $(ARGS)

N ?= 200
SEED ?= 1
.PHONY: faults
faults: setup ## Run N seeded schedules of faults, from SEED on, on real Kafka
	@$(RUN)/python -m tests.fault --schedules $(N) --seed $(SEED) $(if $(EVENTS),--events $(EVENTS)) $(ARGS)

.PHONY: lint
lint: setup ## Check style, types and who imports whom
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

.PHONY: format
format: setup ## Format the code and fix what can be fixed
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

.PHONY: docs
docs: setup ## Generate the reference pages of the docs from the code
	@$(RUN)/python -m tests.docs

.PHONY: build
build: setup ## Build the wheel and the source distribution into build/dist
	@$(UV) build --quiet --out-dir build/dist --python .uv/bin/python

.PHONY: clean
clean: ## Remove what was installed and built here; data of `make up` stays
	@rm -rf .venv .uv build tests/support/kafka/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
