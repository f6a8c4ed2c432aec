# Two commands for a newcomer: `make demo` and `make test`. Each builds the environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# locks/ lists the packages to install, each with its version and the hashes of its files: pip and uv accept
# nothing else. Our own package comes on top, and is built with the installed packages.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip
UV := UV_PYTHON=$(BIN)/python $(BIN)/uv pip
LOCKED := install --quiet --require-hashes --requirement locks
OURS := install --quiet --no-deps --no-build-isolation --editable .

# Python keeps the code that it has compiled, even if the environment forbids that. Tests start hundreds of
# processes. Without kept code, each start of a stock program takes 2 s of CPU more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test rules environments long matrix pythons coverage release proto lock audit bench chaos clean

demo: $(VENV)/.installed-demo
	$(BIN)/flower-nats demo

# Three workers, even on two cores: many tests mostly wait. The order is that of tests/conftest.py. With four
# workers, stock processes of flwr 1.42 do not end in time: each start takes seconds of CPU.
test: $(VENV)/.installed-dev
	$(MAKE) --no-print-directory --jobs 2 environments rules
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

rules: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

# Programs for tests besides our own. Every flwr is installed before the tests: a test that waits for an
# installation would miss the event that it tests.
environments: $(VENV)/.installed-issuer
	$(BIN)/python -m harness.flower_environments

# Tests that `make test` leaves out because they take minutes: more replicas, more versions, more kills.
long: environments
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -m long -n 2 --dist loadfile --no-loadscope-reorder

# VERSIONS="1.33.0 1.43.0" tries only these, and leaves docs/compatibility.md as it is.
matrix: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.matrix \
	    $(or $(VERSIONS),--write docs/compatibility.md)

# Every supported Python, each with an environment of its own: rules, real servers, stock clients.
PYTHONS ?= 3.11 3.12 3.13
pythons: $(PYTHONS:%=python-%)

python-%:
	$(MAKE) VENV=.pythons/$* PYTHON=python$* .pythons/$*/.installed-dev
	PATH="$(CURDIR)/.pythons/$*/bin:$$PATH" .pythons/$*/bin/pytest -n 2 --dist loadfile tests/unit \
	    tests/integration/test_mailbox.py tests/integration/test_rpc.py tests/integration/test_store_schema.py \
	    tests/integration/test_superlink_runs.py tests/integration/test_gateway_messages.py \
	    tests/integration/test_http_bad_input.py tests/integration/test_shutdown.py tests/e2e/test_runs.py

# The code that unit and integration tests run, with all processes that they start.
coverage: export COVERAGE_FOLDER = $(CURDIR)/.coverage
coverage: $(VENV)/.installed-dev $(VENV)/.installed-issuer
	rm -rf .coverage && mkdir .coverage
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/coverage run -m pytest -n 3 --dist loadfile \
	    $(or $(TESTS),tests/unit tests/integration)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Wheel and source distribution in dist/, tried in a fresh environment: see CONTRIBUTING.md.
release: $(VENV)/.installed-dev
	$(BIN)/python -m harness.release

bench: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks

chaos: $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.chaos

# Run it after a change of dependencies in pyproject.toml. LOCK="--upgrade" takes the newest permitted versions of all
# packages, LOCK="--upgrade-package NAME" that of one package.
lock: $(VENV)/.installed-dev
	$(BIN)/python locks/lock.py $(LOCK)

audit: $(VENV)/.installed-dev
	$(BIN)/python locks/audit.py

proto: $(VENV)/.installed-dev
	$(BIN)/python flower_nats/wire/generate.py

# make would keep an environment of the wrong Python, or a half-made one, which would fail later without a clear error.
OLD_PYTHON = $(PYTHON) is `$(PYTHON) --version 2>&1`, and flower-nats needs 3.11 or newer. Remedy: make PYTHON=python3.11
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(OLD_PYTHON)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-demo: pyproject.toml locks/demo.txt | $(VENV)/bin/python
	$(PIP) $(LOCKED)/build.txt --requirement locks/demo.txt
	$(PIP) $(OURS)
	touch $@

# uv takes a tenth of pip's time. But only pip knows an index that pip's configuration names.
$(VENV)/.installed-dev: pyproject.toml locks/dev.txt | $(VENV)/bin/python
	$(PIP) $(LOCKED)/installer.txt
	$(UV) $(LOCKED)/build.txt --requirement locks/dev.txt || $(PIP) $(LOCKED)/build.txt --requirement locks/dev.txt
	$(PIP) $(OURS)
	touch $@ $(VENV)/.installed-demo

# The OIDC issuer of the tests, by the Node that is in the environment.
$(VENV)/.installed-issuer: harness/oidc/package-lock.json $(VENV)/.installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --prefix harness/oidc --no-audit --no-fund --silent
	touch $@

clean:
	rm -rf $(VENV) .pythons .coverage dist build *.egg-info harness/oidc/node_modules
