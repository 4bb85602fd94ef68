# `make demo` and `make test` need Python >= 3.11 and nothing else by hand. `make help` lists all targets.

PYTHON ?= python3
VENV ?= .venv
# a package index that offers the torch you want, such as a CPU build; empty: your usual index
TORCH_INDEX_URL ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo summarise chat test lint types bench format clean venv

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## get the default corpus, train, score, show translations (what is there already is used)
	$(BIN)/s2s demo

summarise: $(READY) ## the same for summaries: Debian's package descriptions to their synopsis
	$(BIN)/s2s demo summarise/debian-synopsis

chat: $(READY) ## the same for dialogue: human conversations, and then one with you
	$(BIN)/s2s demo chat/chitchat

test: $(READY) ## every test that needs no network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not network and not slow"

lint: $(READY) ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## strict type check
	$(BIN)/mypy

# A toolkit that can't be installed, or fails, is left out or told as failed; the others are measured.
bench: $(READY) ## speed beside other toolkits; CORPUS=FOLDER with train, val and test in en and de (hours, several GB)
	$(BIN)/python -m bench.speed prepare $(CORPUS)
	-$(BIN)/python -m bench.speed install
	-$(BIN)/python -m bench.speed run
	-$(BIN)/python -m bench.speed profile
	$(BIN)/python -m bench.speed show
	$(BIN)/python -m bench.growth run
	$(BIN)/python -m bench.growth show
	$(BIN)/python -m bench.corpora run
	$(BIN)/python -m bench.corpora show

format: $(READY) ## put all code into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(READY) ## only set up the environment

# The stamp is written last, so that a set-up that broke off is done again. torch goes first if it has an index of its
# own: that index need not have the other packages, nor they the same versions there.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "s2s needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX_URL),$(BIN)/python -m pip install --no-deps --index-url $(TORCH_INDEX_URL) $(TORCH))
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	@touch $@

clean: ## remove caches and builds; the environment and runs/ stay
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find s2s tests -name __pycache__ -type d -prune -exec rm -rf {} +
