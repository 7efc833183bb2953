# All work goes through these targets. They share one environment, .venv, which the first of them installs.

PYTHON ?= python3
# Where torch's CPU build is taken from when pip's own indices do not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# The environment of a machine with GPUs, which the lock is not for.
GPU_PYTHON ?= python3

LOCK := requirements/cpu.txt
TOOLS := requirements/dev.txt
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# --no-compile: most of what is installed is never imported; what is, compiles itself once.
PIP_INSTALL := $(PIP) install -qq --no-deps --no-compile
TORCH = $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' $(LOCK))

# Model runner V2, which vLLM takes where Triton is, with its kernels interpreted on the CPU.
V2_LOCK := requirements/v2.txt
V2_BACKEND := tests/v2/triton_cpu
V2_TESTS := tests/engine/lockstep tests/engine/sampling tests/v2
V2_PYTHON := PYTHONPATH=$(CURDIR)/.v2 TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 $(BIN)/python
# Whoever of the two processes is done goes on with the next file; tests/support/order.py says in what order.
PYTEST_IN_TWO := -m pytest -n 2 --no-loadscope-reorder

export HF_HUB_OFFLINE ?= 1
# Set in many containers. Nothing is compiled at the install, so every start of an engine would compile vLLM anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: install demo test test-v2 check chaos fuzz image-check recipes docs bench gpu-test gpu-bench clean help

install: .venv/.project  ## build .venv from the lock, and the project into it

demo: .venv/.project  ## run the embedded tiny pair on the CPU, about a minute
	$(BIN)/xsample run --budget 8 --direction reverse

test: .venv/.project  ## the whole test suite, in two processes
	$(BIN)/python $(PYTEST_IN_TWO)

test-v2: .v2/.backend  ## the tests of engines again, on vLLM's model runner V2 in Triton's interpreter
	@[ ! -e .v2/.triton ] || $(V2_PYTHON) $(PYTEST_IN_TWO) -m v2 $(V2_TESTS)

check: .venv/.project  ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

chaos: .venv/.project  ## 50 runs that are killed at random and resumed, about an hour
	$(BIN)/python -m tests.chaos --runs 50

fuzz: .venv/.project  ## 10,000 hostile inputs of each kind, about an hour
	XSAMPLE_FUZZ_CASES=10000 $(BIN)/python -m pytest -k fuzz

image-check: .venv/.project  ## the steps of the CPU image in a new Debian root, as root, five minutes
	$(BIN)/python -m tests.replay_image

recipes: .venv/.project  ## train what the comparisons of models need, what is not in the cache yet; less than half an hour
	$(BIN)/python -m recipes.train analyses

docs: .venv/.project  ## the documentation site, into site/; a broken link or name is an error
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs site

bench: .venv/.project  ## speed beside the limits and beside what users do today, against what was recorded; ten minutes
	mkdir -p .bench
	$(BIN)/python -m benchmarks.paired --rounds 5 --json .bench/paired.json
	$(BIN)/python -m benchmarks.against --curve --rounds 4 --json .bench/against.json
	$(BIN)/python -m benchmarks.sweep --rounds 1 --json .bench/sweep.json
	$(BIN)/python -m benchmarks.throughput --rows 8_000_000 --rounds 2 --json .bench/throughput.json
	$(BIN)/python -m benchmarks.grading --rounds 2 --json .bench/grading.json
	$(BIN)/python -m benchmarks.check .bench/*.json

gpu-test:  ## the embedded pair on this machine's GPU, beside the oracle
	XSAMPLE_TEST_DEVICE=cuda $(GPU_PYTHON) -m pytest tests/gpu

gpu-bench:  ## what lock-step costs on this machine's GPU, in eight minutes at most; goes on where it ended
	$(GPU_PYTHON) -m benchmarks.gpu

clean:  ## remove .venv and every cache; runs/ stays
	rm -rf .venv .v2 .bench dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter, TORCH_INDEX=URL where torch's CPU build comes from."

# The two stamps come last in their rules: an install that was interrupted starts again from nothing.
.venv/.locked: $(LOCK) $(TOOLS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { echo >&2 \
	  "make: $(PYTHON) is not Python 3.11 to 3.13 ($$($(PYTHON) --version 2>&1 | tail -n 1)): make install PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	  "make: $(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@command -v "$${CXX:-g++}" >/dev/null || echo >&2 \
	  "make: note: there is no C++ compiler (g++): on the CPU, --no-enforce-eager will not work"
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || echo >&2 \
	  "make: note: there is no libnuma, which vLLM's CPU kernels need: apt install libnuma1, or dnf install numactl-libs"
	rm -rf .venv
	$(PYTHON) -m venv .venv
	@echo "installing $(TORCH), then the rest of $(LOCK): a minute or two, 2 GB"
	@$(PIP_INSTALL) "$(TORCH)" 2>.venv/torch.log || $(PIP_INSTALL) --index-url "$(TORCH_INDEX)" "$(TORCH)" || { \
	  cat .venv/torch.log; echo >&2 "make: $(TORCH) is neither in pip's own indices (above) nor at TORCH_INDEX=$(TORCH_INDEX):" \
	  "set TORCH_INDEX to a mirror of that index, or PIP_FIND_LINKS to a folder with the wheel, and run make install again"; exit 1; }
	@$(PIP_INSTALL) -r $(LOCK) -r $(TOOLS) || { echo >&2 \
	  "make: a package of $(LOCK) or $(TOOLS) could not be installed (above): check the network or pip's index, and run make install again"; exit 1; }
	@touch $@

.venv/.project: .venv/.locked pyproject.toml
	@$(PIP_INSTALL) --no-build-isolation --editable . || { echo >&2 \
	  "make: the project itself could not be installed (above)"; exit 1; }
	@touch $@

# Triton has a folder of its own: where vLLM finds it, it takes its model runner V2. A machine that cannot have Triton
# goes without these tests.
.v2/.triton: $(V2_LOCK) .venv/.locked
	@rm -rf .v2 && mkdir .v2
	@if $(PIP_INSTALL) --target .v2 -r $(V2_LOCK) 2>.v2/pip.log; then touch $@; else \
	  echo "make: test-v2 is skipped, Triton cannot be installed: $$(tail -n 1 .v2/pip.log)"; fi

.v2/.backend: .v2/.triton $(shell find $(V2_BACKEND) -name '*.py' -o -name pyproject.toml) | .venv/.project
	@[ ! -e .v2/.triton ] || { $(PIP_INSTALL) --no-build-isolation --upgrade --target .v2 $(V2_BACKEND) && touch $@; }
