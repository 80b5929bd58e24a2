# Everything that is done to this repository, by name. `make help` lists it.
#
# One virtual environment, .venv, serves all of it. It is made once: torch from the package index
# takes about 5 GB on Linux. Two stamps in it say when the dependencies and the package were last
# installed; each is redone only when a file that it depends on is newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# With one interpreter named, cargo and maturin share what they build of pyo3.
export PYO3_PYTHON := $(VIRTUAL_ENV)/bin/python

DEPENDENCIES := $(VENV)/.dependencies
PACKAGE := $(VENV)/.package
RUST := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(PACKAGE) ## make .venv with pinned dependencies, and build and install the package in it

$(DEPENDENCIES): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(PACKAGE): $(DEPENDENCIES) $(RUST)
	env -u CONDA_PREFIX $(BIN)/maturin develop --release --locked
	touch $@

.PHONY: demo
demo: $(PACKAGE) ## train a small GPT with torch's AdamW and ours, and compare (2 minutes)
	$(BIN)/optim8 demo

.PHONY: test
test: test-rust test-python ## every check, as CI runs it

.PHONY: test-rust
test-rust: $(DEPENDENCIES) ## rustfmt, clippy, and the tests of the Rust core
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --workspace; \
	else \
		cargo test --locked --workspace; \
	fi

.PHONY: test-python
test-python: $(PACKAGE) ## ruff, mypy, stubtest, and pytest with doctests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest optim8._native
	$(BIN)/optim8 info
	$(BIN)/python -m pytest

# Left out are tests of what that torch does not have.
OLDEST := concurrency determinism golden graft groups interop long_runs moved muon quantize rounding \
    rules state_dict step surgery training
.PHONY: test-oldest
test-oldest: ## most Python tests with torch 2.4, in an environment of its own (5 GB; Python 3.10 to 3.12)
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	env -u VIRTUAL_ENV -u PYO3_PYTHON .venv-oldest/bin/python -m pip install --quiet --group oldest .
	.venv-oldest/bin/python -m pytest $(OLDEST:%=tests/test_%.py)

.PHONY: test-arm
test-arm: ## the Rust core's tests for ARM, in an emulator (Debian; installs what it needs)
	tests/emulate/arm.sh

.PHONY: test-avx512
test-avx512: ## the Rust core's tests for AVX-512, in an emulator (Debian; installs what it needs)
	tests/emulate/avx512.sh

.PHONY: bench
bench: $(PACKAGE) ## time everything against torch and, where installed, its peers; keep a record
	$(BIN)/python -m benches all

.PHONY: bench-rust
bench-rust: ## time the Rust kernels alone
	cargo bench --locked --package optim8-core

.PHONY: fidelity
fidelity: $(PACKAGE) ## how far each format's updates are from 32-bit AdamW's
	$(BIN)/python -m benches fidelity

.PHONY: peers
peers: $(DEPENDENCIES) ## install the libraries that the benchmarks compare with
	$(BIN)/python -m pip install --quiet --group peers

.PHONY: fmt
fmt: $(DEPENDENCIES) ## format everything, and fix what ruff can fix
	cargo fmt --all
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: clean
clean: ## remove what is built, but not .venv
	cargo clean
	rm -rf out dist .mypy_cache .pytest_cache .ruff_cache .hypothesis $(PACKAGE)
	rm -f python/optim8/_native.*so python/optim8/_native.pyd
