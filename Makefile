# `make demo` and `make test` set up .venv by themselves; nothing else needs to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
CORES := --numprocesses auto --maxprocesses 4 --dist worksteal
# Nothing here needs the hub but `reproduce`.
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test slow lint format reproduce clean

demo: $(READY) ## all 19 rows at demo scale on built-in models and made-up messages, offline
	$(BIN)/ftkit ablation run configs/ch06 --overlay configs/ch06/demo.yaml --out runs/demo
	$(BIN)/ftkit ablation table runs/demo
	$(BIN)/ftkit ablation report runs/demo --png false

test: lint ## lint, types and the fast tests
	$(BIN)/python -m pytest -m "not slow" $(CORES)

slow: $(READY) ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(CORES)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reproduce: $(READY) ## the published table on one CUDA GPU, with OpenAI's weights and the UCI messages (downloads both)
	HF_HUB_OFFLINE=0 $(BIN)/ftkit ablation run configs/ch06 --overlay configs/ch06/gpu.yaml --out runs/ch06
	$(BIN)/ftkit ablation table runs/ch06
	$(BIN)/ftkit ablation report runs/ch06 --png false

clean:
	rm -rf .venv build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
