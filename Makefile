# `make demo` and `make test` set up .venv by themselves, with the versions of constraints/tested.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
CORES := --numprocesses auto --maxprocesses 4 --dist worksteal
# Nothing here needs the hub but `reproduce`.
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-lowest test-newest slow docs package lint format reproduce clean .venv-newest/ready

# $(call sweep,OVERLAY,FOLDER): a sweep, which ends with its table, and its report. Exit code 4 says that rows failed: both
# show them, and the recipe then ends with the sweep's code.
define sweep
@$(BIN)/ftkit ablation run configs/ch06 --overlay configs/ch06/$(1).yaml --rows 1-19 --out runs/$(2); \
code=$$?; [ $$code -eq 0 ] || [ $$code -eq 4 ] || exit $$code; \
$(BIN)/ftkit ablation report runs/$(2) --png false && exit $$code
endef

demo: $(READY) ## all 19 rows at demo scale on built-in models and made-up messages, offline
	$(call sweep,demo,demo)

test: lint ## lint, types and the fast tests
	$(BIN)/python -m pytest -m "not slow" $(CORES)

test-lowest test-newest: test-%: .venv-%/ready ## the fast tests on the lowest or newest versions that pyproject.toml allows
	.venv-$*/bin/python -m pytest -m "not slow" $(CORES)

slow: $(READY) ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(CORES)

docs: $(READY) ## the documentation, offline, into build/docs/index.html; warnings are errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs

package: $(READY) ## the sdist and the wheel, checked; the wheel alone runs two rows of the first demo, offline
	rm -rf dist build/package
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --quiet --constraint constraints/tested.txt dist/*.whl
	cd build/package && bin/ftkit init demo && bin/ftkit ablation run demo --rows 1-2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reproduce: export HF_HUB_OFFLINE := 0
reproduce: $(READY) ## the published table on one CUDA GPU, with OpenAI's weights and the UCI messages (downloads both)
	$(call sweep,gpu,ch06)

clean:
	rm -rf .venv .venv-gpu .venv-lowest .venv-newest build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info

.venv/ready: VERSIONS := --constraint constraints/tested.txt
.venv-lowest/ready: VERSIONS := --constraint constraints/lowest.txt
.venv-newest/ready: VERSIONS := --upgrade --upgrade-strategy eager
.venv/ready .venv-lowest/ready .venv-newest/ready: %/ready: pyproject.toml constraints/tested.txt constraints/lowest.txt
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet $(VERSIONS) --editable ".[dev]"
	touch $@
