# Astrocloud. `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

# Python: Debian's own build is optimized by profile (servers start a fifth faster with it), so it comes first where new enough.
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
KUBE_TESTS ?= kube or chart
UV := $(abspath .tools/bin/uv)
PROXY := hub/proxy/node_modules/configurable-http-proxy/package.json
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := hardlink

.PHONY: help run test test-fast lint format docs bench clean lock install install-dev bubblewrap chromium \
  cluster cluster-down test-chart test-kube test-kube-e2e bench-kube images

help: ## Say what each target does
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install bubblewrap ## Install what is locked and run the platform in the foreground
	@exec env PATH="$(abspath .tools/bin):$$PATH" $(BIN)/astrocloud up

test: install-dev bubblewrap chromium ## Run the whole test suite; what failed beside others is run again alone
	@export PATH="$(abspath .tools/bin):$$PATH"; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS) || { [ $$? = 1 ] && tools/again $(BIN)/python $(PYTEST_ARGS); }

test-fast: install-dev bubblewrap ## Run the tests that take less than five minutes together
	PATH="$(abspath .tools/bin):$$PATH" $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow and not e2e and not kube and not chart" $(PYTEST_ARGS)

lint: install-dev ## Check format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install-dev ## Build the documentation, with every warning an error
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: install-dev bubblewrap ## Measure the figures that docs/performance.md quotes
	PATH="$(abspath .tools/bin):$$PATH" $(BIN)/python -m tests.bench

bench-kube: install-dev ## Measure servers as pods, real and pretended ones (root on Debian; BENCH_ARGS="--rounds 5")
	@$(BIN)/python -m tests.bench.kube $(BENCH_ARGS)

images: ## Build the images with buildah, podman or docker (IMAGES="hub proxy", IMAGE_PREFIX=, IMAGE_PUSH=1)
	@images/build $(IMAGES)

cluster: install-dev ## Bring up a Kubernetes of three nodes on this machine (root on Debian)
	@$(BIN)/python -m tests.kube.cluster up

cluster-down: install-dev ## End that cluster and leave nothing of it running
	@$(BIN)/python -m tests.kube.cluster down

test-chart: install-dev ## Run the tests of the chart that take no cluster
	@$(BIN)/python -m tests.kube.cluster build helm kubeconform
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m chart tests/kube $(PYTEST_ARGS)

test-kube: install-dev ## Run the tests on a cluster: that one, or the one that KUBECONFIG names (KUBE_TESTS="kube and not slow")
	@$(BIN)/python -m tests.kube.cluster build
	@$(BIN)/python -m pytest -m "$(KUBE_TESTS)" tests/kube $(PYTEST_ARGS) || \
	  { [ $$? = 1 ] && tools/again $(BIN)/python -m "$(KUBE_TESTS)" tests/kube $(PYTEST_ARGS); }

test-kube-e2e: install-dev chromium ## Run the end-to-end tests of one machine against a platform on that cluster
	@$(BIN)/python -m tests.kube.cluster build
	ASTROCLOUD_E2E=kube $(BIN)/python -m pytest tests/e2e $(PYTEST_ARGS)

clean: ## Remove what was built and installed here; people's data stays
	rm -rf $(VENV) .tools .cache hub/proxy/node_modules docs/_build docs/reference/_generated bench-results test-results \
	  .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed, and when again: each stamp holds until its lock changes.

install: $(VENV)/.run $(PROXY)

install-dev: $(VENV)/.dev $(PROXY)

bubblewrap:
	@tools/need 'command -v bwrap' bubblewrap || true

chromium:
	@tools/need 'command -v chromium' chromium fonts-noto-cjk

$(UV): requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found; name one: make PYTHON=/path/to/python3 run" >&2; exit 2; }
	@tools/bootstrap-uv "$(PYTHON)"

$(VENV)/bin/python: | $(UV)
	$(UV) venv -q --allow-existing -p $(PYTHON) $(VENV)

$(VENV)/.run: requirements/run.txt requirements/node.txt pyproject.toml | $(UV) $(VENV)/bin/python
	$(UV) pip install -q -p $(BIN)/python --compile-bytecode --require-hashes -r requirements/run.txt
	@tools/own-node || $(UV) pip install -q -p $(BIN)/python --require-hashes -r requirements/node.txt
	$(UV) pip install -q -p $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(UV) pip install -q -p $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

$(PROXY): hub/proxy/package-lock.json | $(VENV)/.run
	cd hub/proxy && PATH="$(abspath $(BIN)):$$PATH" npm ci --omit=dev --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

LOCK := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock: $(UV) ## Lock the platform's dependencies anew (add UPGRADE=--upgrade for newer ones)
	$(LOCK) $(UPGRADE) requirements/uv.in -o requirements/uv.txt
	$(LOCK) $(UPGRADE) requirements/node.in -o requirements/node.txt
	$(LOCK) $(UPGRADE) requirements/build.in pyproject.toml --extra hub --extra services -o requirements/run.txt
	$(LOCK) $(UPGRADE) requirements/build.in pyproject.toml --extra hub --extra services --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(LOCK) $(UPGRADE) requirements/build.in -c requirements/run.txt -o images/base/build.txt
	$(LOCK) $(UPGRADE) images/hub/requirements.in pyproject.toml --extra hub -c requirements/run.txt -o images/hub/requirements.txt
	$(LOCK) $(UPGRADE) images/services/requirements.in pyproject.toml --extra services -c requirements/run.txt -o images/services/requirements.txt
	$(LOCK) $(UPGRADE) tests/kube/cluster/go.in -o tests/kube/cluster/go.txt
