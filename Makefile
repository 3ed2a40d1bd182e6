# make demo, make test: each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
# Another build of torch, for instance PyTorch's index of CPU wheels: make setup TORCH_INDEX_URL=...
TORCH_INDEX_URL ?=
# Versions of everything else; none are fixed if empty: make setup CONSTRAINTS= TORCH=torch
CONSTRAINTS ?= constraints.txt
ARGS ?=

# lighteval has an environment of its own: it needs an older latex2sympy2_extended than math-verify does.
LIGHTEVAL := .venv-lighteval

.PHONY: setup demo test docs golden links test-all bench bench-gpu lighteval javascript vendor style types format dist clean

setup: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS) Makefile
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or later is needed; name one with: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -c "import torch, sys; sys.exit('$(TORCH)' not in ('torch', 'torch==' + torch.__version__.split('+')[0]))" 2>/dev/null || { \
		if [ -z "$(TORCH_INDEX_URL)" ] && [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
			echo "No NVIDIA GPU found. Where pip's index serves torch with CUDA, several GB are about to come;"; \
			echo "the CPU build is smaller: make setup TORCH_INDEX_URL=<the CPU index that pytorch.org's start page names>"; \
		fi; \
		echo "Installing $(TORCH)"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check \
			$(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH); }
	@echo "Installing small-doge and what it needs, in the versions of $(or $(CONSTRAINTS),pyproject.toml)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e ".[dev]"
	@touch $(STAMP)

demo: setup
	$(BIN)/small-doge demo $(ARGS)

test: setup
	$(BIN)/python -m pytest -n auto $(ARGS)

# The site, in site/; a link that leads nowhere is an error. To read it while writing: .venv/bin/mkdocs serve
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

links: setup
	$(BIN)/python -m tests.doc_links
	$(BIN)/python -m tests.settings_table

golden: setup
	$(BIN)/python -m tests.golden.runs $(ARGS)

test-all: setup
	$(BIN)/python -m pytest -m "slow or gpu or (not slow and not gpu)" $(ARGS)

bench: setup
	$(BIN)/python benchmarks/bench_training_step.py
	$(BIN)/python benchmarks/bench_long_forward.py
	$(BIN)/python benchmarks/bench_generation.py
	$(BIN)/python benchmarks/bench_cdmoe.py
	$(BIN)/python benchmarks/bench_data.py
	$(BIN)/python benchmarks/bench_peers.py
	$(BIN)/python benchmarks/bench_inference.py
	$(BIN)/python benchmarks/bench_kv_cache.py

# GPU tests, attention, training and generation on one GPU, in less than ten minutes; writes a file in benchmarks/results.
bench-gpu: setup
	$(BIN)/python -m benchmarks.bench_gpu $(ARGS)

# For evaluation/eval_downstream_tasks.sh.
lighteval: $(LIGHTEVAL)/.installed

$(LIGHTEVAL)/.installed: $(STAMP) evaluation/lighteval-constraints.txt evaluation/prepare_lighteval.py
	@test -x $(LIGHTEVAL)/bin/python || { echo "Making $(LIGHTEVAL)"; $(PYTHON) -m venv $(LIGHTEVAL); }
	@echo "Installing $(TORCH) and lighteval"
	@$(LIGHTEVAL)/bin/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@$(LIGHTEVAL)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c evaluation/lighteval-constraints.txt lighteval langdetect
	@$(BIN)/python evaluation/prepare_lighteval.py $(LIGHTEVAL)
	@touch $@

# For examples/javascript; --ignore-scripts leaves out onnxruntime-node's download for GPUs.
javascript:
	npm ci --ignore-scripts --no-audit --no-fund --prefix examples/javascript

# What the page imports, from npm at the versions in tools/vendor.py.
vendor: setup
	$(BIN)/python tools/vendor.py

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The wheel and the source archive, in dist/.
dist: setup
	rm -rf dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build==1.6.1 twine==7.0.0
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf runs site .pytest_cache .ruff_cache .mypy_cache .hypothesis
