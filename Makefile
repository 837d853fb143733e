# Crossdock: `make demo` shows it at work, `make test` checks it. Everything is made under .venv/, .cache/ and build/;
# outside this directory only Debian packages are installed (tests/install-peers.sh), and only where that is allowed.

PYTHON ?= python3
RUNS ?= 3
BIN := .venv/bin
VENV := .venv/.installed
IMAGE := build/image
# The Python of the executor image (deploy/image/Dockerfile), not of this machine.
IMAGE_PYTHON := 3.11

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fmt image peers compiled clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV) peers compiled ## Build, push, pull and run an image through the proxy, twice, with times
	@$(BIN)/python -m tests.demo

test: check peers compiled $(IMAGE)/.made ## Run every check and every test
	@$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

check: $(VENV) ## Formatting, lint and types
	@$(BIN)/ruff format --check --quiet . || { echo 'ruff format: run make fmt'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

bench: $(VENV) peers compiled ## Measure against Debian's buildah, docker-registry and nginx (RUNS=3)
	@$(BIN)/python -m tests.bench --runs $(RUNS)

fmt: $(VENV) ## Format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

image: $(IMAGE)/.made ## Lay out the context of the executor image under build/image
	@echo 'Build it with: $(BIN)/crossdock build $(IMAGE) --destination REGISTRY/crossdock:TAG'

peers:
	@tests/install-peers.sh

# As an installation is, whether or not this machine's Python may write what it has compiled.
compiled: $(VENV)
	@$(BIN)/python -m compileall -q builder cache proxy crossdock.py

clean: ## Remove what was made: the environment, caches, build/
	rm -rf .venv .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Dependencies for the image's Python and C library, whatever this machine has; the code itself is copied below.
$(IMAGE)/.dependencies: requirements.txt Makefile $(VENV)
	@rm -rf $(IMAGE)/lib $@
	@mkdir -p $(IMAGE)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile --only-binary=:all: \
	  --target $(IMAGE)/lib --implementation cp --python-version $(IMAGE_PYTHON) \
	  --abi cp$(subst .,,$(IMAGE_PYTHON)) --abi abi3 --abi none \
	  $(foreach v,2_34 2_28 2_17 2014 2_12 2_5,--platform manylinux$(if $(findstring _,$(v)),_)$(v)_$(shell uname -m)) \
	  --platform any -r requirements.txt
	@touch $@

$(IMAGE)/.made: $(IMAGE)/.dependencies $(wildcard deploy/image/*) crossdock.py \
  $(shell find cache proxy builder -name '*.py')
	@cp deploy/image/Dockerfile deploy/image/.dockerignore deploy/image/crossdock $(IMAGE)/
	@rm -rf $(addprefix $(IMAGE)/lib/,cache proxy builder)
	@tar -c --exclude=__pycache__ cache proxy builder crossdock.py | tar -x -C $(IMAGE)/lib
	@touch $@
