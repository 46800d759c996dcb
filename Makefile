# Needs Python 3.10 or newer, and make. Everything else is installed into .venv.
#
#     make demo                        a real server, a few dozen jobs, a kill and a drain
#     make check                       all that CI checks
#     make test ARGS="-k drain -x"     the tests, or some of them
#     make fuzz ARGS="--seed 7"        a million inputs for the decoders, 100,000 for the supervisor
#     make chaos ARGS="--minutes 60"   a server under load and under attack; see docs/reliability.md
#     make soak                        100,000 jobs: does anything grow?
#     make check PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Stamps: each is newer than the files that say what to install, or it is made again.
FILES  := pyproject.toml constraints.txt
SERVER := $(VENV)/installed-server
DEV    := $(VENV)/installed-dev
BENCH  := $(VENV)/installed-bench

.PHONY: help demo test check format bench fuzz chaos soak clean
.DELETE_ON_ERROR:

help:
	@awk '!/^#/ { exit } { sub(/^# ?/, ""); print }' Makefile

demo: $(SERVER)
	@$(BIN)/python examples/demo.py

test: $(DEV)
	@$(BIN)/python -m pytest $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

format: $(DEV)
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(BENCH)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks $(ARGS)

fuzz: $(DEV)
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: $(DEV)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.chaos $(ARGS)

soak: $(BENCH)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.soak $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(SERVER): EXTRAS := server
$(DEV):    EXTRAS := server,livekit,dev
$(BENCH):  EXTRAS := server,bench

$(SERVER) $(DEV) $(BENCH): $(FILES) | $(BIN)/python
	@echo "installing greenroom[$(EXTRAS)] into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("make: Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: no venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
