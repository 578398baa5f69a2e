# fedpress: two commands do everything on a machine with Python 3.11+, make and a C compiler.
#
#   make demo     set up, then the main job: 10 client processes, compressed both ways, and its report
#   make test     set up, then all the tests
#   make check    set up, then lint, types, the proto check and the tests: what CI runs
#   make fleet    a server and four clients in containers (needs Docker with compose)
#   make bench    the figures of the README, measured (see simulations/benchmarks)
#   make rivals   ecsq beside nncodec, the ISO's coder, and zstd on real updates (builds nncodec: needs a C++ compiler)
#   make sanitize the C kernels under the address and undefined-behaviour sanitizers
#   make fuzz     coverage-guided fuzzing of every decoder for SECONDS (60)
#   make wheel    a wheel for this platform, installed and tried in an empty environment

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    ?= runs/demo

.PHONY: demo test check lint types protos proto-check bench rivals fleet sanitize fuzz wheel setup clean

setup: $(VENV)/.ready

# Strict editable installs link files one by one: a file added or removed means installing again.
SOURCES := $(shell git ls-files '*.py' '*.proto' '*.j2' '*.c' '*.h' 2>/dev/null | cksum | cut -d' ' -f1)

$(VENV)/.ready: pyproject.toml constraints.txt $(VENV)/.files-$(SOURCES)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]' 2> $(VENV)/install.log || (cat $(VENV)/install.log; false)
	@touch $@

$(VENV)/.files-$(SOURCES): | $(VENV)/bin/python
	@rm -f $(VENV)/.files-*; touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

demo: setup
	$(BIN)/fedpress simulate simulations/demo.toml --fresh

test: setup
	$(BIN)/python -m pytest

check: lint types proto-check test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

protos: setup
	rm -rf build/protos && mkdir -p build/protos
	$(BIN)/python -m grpc_tools.protoc -I fedpress/protos=protos --python_out=build/protos --pyi_out=build/protos \
	  fedpress/protos/fleet.proto
	cp build/protos/fedpress/protos/* protos/

proto-check: protos
	git diff --exit-code -- protos

bench: setup
	$(BIN)/fedpress bench codecs --size 4000000
	$(BIN)/python -m fedpress.simulations.benchmarks.wire
	$(BIN)/python -m fedpress.simulations.benchmarks.round_overhead
	$(BIN)/python -m fedpress.simulations.benchmarks.server_memory --rounds 5
	$(BIN)/fedpress bench traffic
	$(BIN)/fedpress bench zoo

# nncodec has an environment of its own: with NumPy alone, of all that it asks for, it codes arrays.
RIVALS := build/rivals
rivals: setup $(RIVALS)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m fedpress.simulations.benchmarks.rivals \
	  "$(RIVALS)/bin/python tests/rivals/nncodec_side.py"

$(RIVALS)/.ready:
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet --no-deps -c constraints.txt nncodec numpy
	@touch $@

COMPOSE := docker compose -f docker/compose.yaml $(if $(FLEET_HOST),-f docker/compose.host.yaml)

# FLEET_HOST=1 where Docker has no bridge network. The run's directory is copied to runs/fleet.
fleet:
	$(COMPOSE) down --volumes
	$(COMPOSE) up --build
	rm -rf runs/fleet && mkdir -p runs && $(COMPOSE) cp server:/runs/fleet runs/
	$(COMPOSE) down --volumes

KERNELS := compression/kernels
sanitize:
	mkdir -p build
	$(CC) -std=c11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -ffp-contract=off -DFEDPRESS_PLAIN \
	  -I$(KERNELS) tests/compression/sanitizers/main.c $(KERNELS)/levels.c $(KERNELS)/vectors.c -o build/sanitize -lm
	build/sanitize $(ROUNDS)

SECONDS ?= 60
fuzz: setup
	$(BIN)/python -m pip install --quiet -c constraints.txt atheris
	$(BIN)/python tests/compression/fuzz.py -max_total_time=$(SECONDS)

# For x86-64 and aarch64 at once: cibuildwheel, as pyproject.toml says. For this platform:
wheel: setup
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet -c constraints.txt build/wheel/*.whl
	cd build/wheel && venv/bin/python -W error -c \
	  "from fedpress.compression.native import compiled; print(compiled.__file__); assert compiled"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
