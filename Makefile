# Targets install what they need themselves, from the lock; `make` lists them.
PYTHON ?= python3
UV_VERSION := 0.13.8
UV := .tools/bin/uv
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' Makefile)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(UV):
	@echo "installing uv $(UV_VERSION) into .tools"
	@$(PYTHON) -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# One stamp, so that the environment is made anew exactly when the lock changed.
.venv/.installed: pyproject.toml client_stubs/python/pyproject.toml uv.lock | $(UV)
	@echo "installing the locked dependencies into .venv"
	@$(UV) sync --frozen --quiet --all-extras --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" && touch $@

install: .venv/.installed ## make .venv from the lock

run: install ## simulator and server, a few turns, then serve until Ctrl-C
	@$(BIN)/warmline demo --keep-serving

demo: install ## the same turns, then exit
	@$(BIN)/warmline demo

test: install ## run the tests
	@$(BIN)/pytest

check: install lint types proto-check docs-check ## what CI runs besides the tests
	@echo "check: all green"

lint: install ## formatting and lint
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .

types: install ## strict types
	@$(BIN)/mypy

format: install ## format the code
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

proto: install ## generate the stubs from protos/
	@scripts/generate_python.sh && scripts/generate_go.sh && scripts/generate_typescript.sh && scripts/generate_rust.sh

proto-check: install ## the contract: lint, and nothing broken against the frozen image
	@$(BIN)/buf lint protos && $(BIN)/buf format --diff --exit-code protos && $(BIN)/buf breaking protos --against protos/warmline.v1.binpb

docs: install ## write the pages that are made from code: configuration, metrics, conformance
	@$(BIN)/python scripts/configuration_docs.py && $(BIN)/python scripts/metrics_docs.py && $(BIN)/python scripts/conformance_docs.py

docs-check: install ## the made pages are up to date, and every conformance row has its test
	@$(BIN)/python scripts/conformance_docs.py --check

mutations: install ## break the code in all named ways and see the tests fail (a quarter of an hour)
	@$(BIN)/python scripts/mutate.py

leaks: install ## 500 sessions of 4 turns with random cancels, counted at both ends
	@PYTHONPATH=tests $(BIN)/python -m e2e.leaks --sessions 500 --turns 4

# Beside what is installed already, and gone again with the next `make install` of another lock.
.venv/.fuzz: .venv/.installed
	@$(UV) sync --frozen --quiet --all-extras --group fuzz --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" && touch $@

fuzz: .venv/.fuzz ## fuzz all that reads foreign bytes: SECONDS=600 in all, or RUNS=1000 of each; TARGET=, REPRODUCE=
	@PYTHONPATH=tests $(BIN)/python -m fuzz.run $(if $(RUNS),--runs $(RUNS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(TARGET),--target $(TARGET)) $(if $(REPRODUCE),--reproduce $(REPRODUCE))

chaos: install ## every fault in every phase over both transports, and the callers' own; writes docs/chaos.md
	@PYTHONPATH=tests $(BIN)/python -m chaos --write

burst: install ## 4000 turns begun in one moment, none lost
	@$(BIN)/python scripts/burst.py --streams 4000 --connections 8

interop: install ## every client against a real server and simulator; writes docs/interop.md
	@PYTHONPATH=tests $(BIN)/python -m interop.harness --write

image-test: install ## build the image on a Debian base without an engine, and stream a turn through it
	@scripts/image_test.sh

rolling-restart: install ## replace two servers behind HAProxy under 200 streams
	@$(BIN)/python scripts/rolling_restart.py

bench: install ## measure against the direct path, a bare relay and peers; writes docs/bench (about forty minutes, needs Go)
	@$(BIN)/python -m bench --out docs/bench

bench-short: install ## the same in seconds, own paths only: shows that it runs and loses nothing
	@$(BIN)/python -m bench --short --repeats 1

.venv/.plots: .venv/.installed
	@$(UV) sync --frozen --quiet --all-extras --group plots --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" && touch $@

# grpc would tell of every process that is started beside it.
SOAK_ENV := PYTHONPATH=tests GRPC_VERBOSITY=ERROR
MINUTES ?= 20
soak: .venv/.plots ## a mixed load with cancels and faults for MINUTES=20; a plot and a verdict in build/soak
	@$(SOAK_ENV) $(BIN)/python -m soak.run --minutes $(MINUTES)

cancels: install ## 1000 callers leave in every way: how soon the upstream is stopped
	@$(SOAK_ENV) $(BIN)/python -m soak.cancels

CALLS ?= 100000
cancels-memory: install ## CALLS=100000 cancelled calls: what they leave in memory
	@$(SOAK_ENV) $(BIN)/python -m soak.cancels --memory --calls $(CALLS)

slow-reader: install ## a reader that reads nothing: what it costs the others, and what it holds
	@$(SOAK_ENV) $(BIN)/python -m soak.slow_reader

sizes: install ## what a server takes: the table in docs/operations.md
	@$(SOAK_ENV) $(BIN)/python -m soak.sizes
