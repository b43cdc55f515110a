# make setup | demo | test | lint | bench | package | fuzz | sanitize | clean
# Needs python3 (3.11 or newer), gcc and make; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CORE   := $(wildcard tradebal/router/c/*.[ch])

.PHONY: setup demo test lint bench package fuzz sanitize clean

setup: $(READY)

$(READY): pyproject.toml packaging/make_venv.py $(CORE)
	@$(PYTHON) packaging/make_venv.py $(VENV) --extras test
	@touch $@

# The market's open, simulated on this machine: 20 seconds, no key, no root, no systemd.
demo: setup
	@$(BIN)/tradebal demo

test: lint
	$(BIN)/pytest -n 2 -m "not guest"
	$(BIN)/pytest -m guest tests/test_guest.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for file in $(filter %.c,$(CORE)); do \
	    $(CC) -std=c11 -O2 -Wall -Wextra -Wconversion -Werror -fsyntax-only $$file || exit 1; \
	done

bench: setup
	@$(BIN)/pip install -q -e ".[bench]"
	$(BIN)/python bench/run.py

# For this distribution's Python; the packages lie in dist/ then.
package: setup
	@$(BIN)/python packaging/make_package.py

# Seconds of fuzzing: make fuzz FOR=3600. Needs clang (apt-get install clang).
FOR ?= 600

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --seconds $(FOR)

# The routers' tests on a core built with AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: setup
	tests/fuzz/sanitize.sh $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info tradebal/router/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
