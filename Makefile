# make setup | demo | test | lint | bench | package | fuzz | sanitize | clean
# Needs python3 (3.11 or newer), gcc and make; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CORE   := $(wildcard tradebal/_native/*.[ch])

.PHONY: setup demo test lint bench package clean

setup: $(READY)

$(READY): pyproject.toml packaging/make_venv.py $(CORE)
	@$(PYTHON) packaging/make_venv.py $(VENV) --extras test
	@touch $@

# The market's open, simulated on this machine: 20 seconds, no key, no root, no systemd.
demo: setup
	@$(BIN)/tradebal demo

test: lint
	$(BIN)/pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python bench/run.py

# For this distribution's Python; the packages lie in dist/ then.
package: setup
	@$(BIN)/python packaging/make_package.py

clean:
	rm -rf $(VENV) build dist *.egg-info tradebal/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
