# Two commands for a newcomer: `make demo` and `make test`. Each builds the environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test matrix proto bench chaos clean

demo: $(VENV)/.installed-demo
	$(BIN)/flower-nats demo

# Three at once, also on two cores: many tests mostly wait. The order is that of tests/conftest.py. With four,
# stock processes of flwr 1.42, which take seconds of CPU to start, kept each other from ending in time.
# The other flwr is installed before them: a test that waited for it would miss what it measures.
test: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m harness.flower_environments
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# VERSIONS="1.33.0 1.43.0" tries these alone, and leaves the page of the others as it is.
matrix: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.matrix \
	    $(or $(VERSIONS),--write docs/compatibility.md)

bench: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks

chaos: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.chaos

proto: $(VENV)/.installed-dev
	$(BIN)/python flower_nats/wire/generate.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed-demo

clean:
	rm -rf $(VENV) build *.egg-info
