# Slipway. `make help` lists what there is to do; a bare Debian 12 with Python 3.11 and root is enough for all of it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# `make test WORKERS=2` runs test files side by side, in so many processes; 0: one after the other.
WORKERS ?= 0
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile
SOURCES := api_service common executor_service protos/generate.py tests

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## Both services, one container from create to remove, each call shown as its grpcurl line
	@$(SUDO) deploy/demo.sh

.PHONY: up
up: setup ## Run both services in the foreground: 127.0.0.1:50051 and unix:///run/slipway/api.sock
	@$(SUDO) deploy/up.sh

.PHONY: shell
shell: setup ## A terminal in a running container: NAME=web; with ATTACH=1 that of its own process
	@$(if $(NAME),,$(error name the container: make shell NAME=web))$(BIN)/python -m tests.shell $(NAME) $(if $(ATTACH),--attach)

.PHONY: pull
pull: setup ## Take an image from its registry, a line a layer: IMAGE=registry.example/team/app:1.4
	@$(if $(IMAGE),,$(error name the image: make pull IMAGE=busybox))$(BIN)/python -m tests.pull $(IMAGE)

.PHONY: check-host
check-host: setup ## Say in one table what this host lacks and how to get it
	@$(SUDO) $(BIN)/python -m executor_service check

.PHONY: test
test: setup ## Every test: unit, service, integration (root, real kernel, network namespaces of its own)
	$(SUDO) $(PYTEST) tests

.PHONY: test-unit
test-unit: setup ## Pure tests, milliseconds each, no privileges
	$(PYTEST) tests/unit

.PHONY: test-service
test-service: setup ## In-process servers on unix sockets, everything below them faked
	$(PYTEST) tests/service

.PHONY: test-integration
test-integration: setup ## The real thing on the real kernel, as root
	$(SUDO) $(PYTEST) tests/integration

.PHONY: test-etcd
test-etcd: setup ## All that goes through the API once more, with the records on etcd (tests/integration/conftest.py)
	$(SUDO) SLIPWAY_TEST_STORE=etcd $(PYTEST) tests/service/api tests/integration

.PHONY: lint
lint: setup ## ruff: style, imports, bugs, format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: setup ## mypy --strict over everything, tests included
	$(BIN)/mypy

.PHONY: protos
protos: setup ## Lint the protos and regenerate the stubs beside them
	$(BIN)/python protos/generate.py

.PHONY: protos-check
protos-check: setup ## Lint the protos with buf and fail when a committed stub is stale
	$(BIN)/python protos/generate.py --check

.PHONY: bench
bench: setup ## Measure this engine against a real dockerd, interleaved; prints a table, writes JSON
	@$(SUDO) deploy/install-packages.sh docker.io docker-registry skopeo umoci iperf3 etcd-server
	$(SUDO) $(BIN)/python -m tests.bench
	$(SUDO) $(BIN)/python -m tests.bench.images
	$(SUDO) $(BIN)/python -m tests.bench.networks
	$(SUDO) $(BIN)/python -m tests.bench.dns
	$(SUDO) $(BIN)/python -m tests.bench.overlay
	$(BIN)/python -m tests.bench.placement
	$(SUDO) $(BIN)/python -m tests.bench.cluster

.PHONY: format
format: setup ## Let ruff format and sort the code
	$(BIN)/ruff check --fix --select I $(SOURCES)
	$(BIN)/ruff format .

.PHONY: setup
setup: $(VENV)/.installed ## Install what is missing from Debian and PyPI (the other targets do it themselves)

$(VENV)/.installed: pyproject.toml deploy/host-packages deploy/install-packages.sh
	@$(SUDO) deploy/install-packages.sh $$(sed 's/#.*//' deploy/host-packages)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: clean
clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
