# The front door: `make` lists the targets. Everything they install goes into .venv, from hash-locked lists.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run demo test check bench quality states seeds nth rot faults planted lock clean rabbitmq
MAKEFLAGS += --no-print-directory

PYTHON ?=
ARGS ?=
COUNT ?= 200
TRACKS ?=
STATES ?= 100000
TRIES ?= 10000
ROUNDS ?= 10
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
LOCKED := --require-hashes --only-binary :all: --progress-bar off

# An environment that was moved here, or whose Python is gone, is made anew.
ifneq ($(shell test "$$(cat $(VENV)/.made 2>/dev/null)" = "$$(pwd)" && $(BIN)/python -c 'print("works")' 2>/dev/null),works)
$(shell rm -f $(VENV)/.made)
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is passed on to the command that a target runs.'

run: $(VENV)/.package ## start signalkeep on this machine, with a PostgreSQL of its own
	@exec $(BIN)/signalkeep run $(ARGS)

demo: $(VENV)/.package ## the same, with a simulated fleet
	@exec $(BIN)/signalkeep run --demo $(ARGS)

test: check rabbitmq ## everything that must hold: checks, then all tests
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(VENV)/.dev $(VENV)/.package ## lint, format, types, layers, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

bench: $(VENV)/.package ## how fast each stage and the whole is, next to the ceiling of the same run (a quarter of an hour)
	@exec $(BIN)/python -m benchmarks.bench $(ARGS)

quality: $(VENV)/.dev $(VENV)/.package ## plant faults, and see which the rules find (COUNT=200, TRACKS=DIR of scripts/real_tracks.sh)
	@exec $(BIN)/python -m tests.quality.measure --count $(COUNT) $(if $(TRACKS),--tracks $(TRACKS)) $(ARGS)

states: $(VENV)/.dev $(VENV)/.package ## crash states of the journal (STATES=1000000)
	@exec $(BIN)/python -m tests.faults.crash_states --states $(STATES) $(ARGS)

seeds: $(VENV)/.dev $(VENV)/.package ## simulated histories full of faults (COUNT=1000)
	@exec $(BIN)/python -m tests.faults.seeds --count $(COUNT) $(ARGS)

nth: $(VENV)/.dev $(VENV)/.package ## fail each call of disk and database in turn
	@exec $(BIN)/python -m tests.faults.nth_call $(ARGS)

rot: $(VENV)/.dev $(VENV)/.package ## damaged journals (TRIES=1000000)
	@exec $(BIN)/python -m tests.faults.bit_rot --tries $(TRIES) $(ARGS)

faults: $(VENV)/.dev $(VENV)/.package ## kill real processes at random under load, then outage drills at length (ROUNDS=10, ARGS=--broker)
	@$(BIN)/python -m tests.faults.kills --rounds $(ROUNDS) $(ARGS)
	@$(BIN)/python -m tests.faults.drills --seconds 60 $(ARGS)
	@exec $(BIN)/python -m tests.faults.drills_people --seconds 60 $(ARGS)

planted: $(VENV)/.dev $(VENV)/.package ## plant known bugs in a copy and see that each is noticed
	@exec $(BIN)/python -m tests.faults.planted $(ARGS)

lock: $(VENV)/.dev ## write requirements/*.txt anew (ARGS=--upgrade takes newer versions)
	$(BIN)/python scripts/lock.py $(ARGS)

clean: ## remove what was built or installed here; data directories stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed under CI, asked for elsewhere: the tests of the broker start real nodes.
rabbitmq:
	@sh scripts/rabbitmq.sh

$(VENV)/.made:
	@sh scripts/venv.sh $(VENV) $(PYTHON)

$(VENV)/.run: $(VENV)/.made requirements/run.txt requirements/build.txt
	@echo "Installing what signalkeep runs on into $(VENV) (only the first time, and when the lists change) ..."
	@$(PIP) install $(LOCKED) -r requirements/run.txt -r requirements/build.txt
	@touch $@

$(VENV)/.package: $(VENV)/.run pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements/dev.txt
	@echo "Installing what the tests and checks need into $(VENV) ..."
	@$(PIP) install $(LOCKED) -r requirements/dev.txt
	@touch $@
