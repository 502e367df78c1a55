# Works on a fresh clone with Python 3.11 or later, pip and make; the virtual environment is .venv in this folder.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
PYTEST := $(BIN)/pytest -q --numprocesses auto --dist loadfile

.PHONY: demo test check docs notebooks format bench calibrate mutants flips fuzz faults clean

demo: .venv/demo  ## fine-tune minilm on the built-in sample, classify two headlines, write a submission
	$(BIN)/loralab train quickstart --name demo --overwrite
	$(BIN)/loralab predict runs/demo --input "Oil slips below 50 dollars as stocks of crude rise" \
	  --input "Striker's late header sends the cup final into extra time"
	$(BIN)/loralab predict runs/demo --file examples/unlabelled.csv --format submission --out runs/demo-submission.csv --overwrite

test: check  ## all tests: the fast ones first, then the slow ones
	$(PYTEST) -m "slow and not gpu and not network"

check: .venv/dev  ## format, lint, types, import contracts and fast tests: the first part of CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror src/loralab/model/kernels/*.[ch]
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow and not gpu and not network"

docs: .venv/dev  ## build the documentation into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: .venv/dev  ## execute notebooks/*.ipynb and store their outputs: three to five minutes; ARGS="01_quickstart"
	$(BIN)/python notebooks/execute.py $(ARGS)

format: .venv/dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i src/loralab/model/kernels/*.[ch]

bench: .venv/dev  ## all benchmarks against HF Trainer + peft and others, on an idle machine: an hour; ARGS="training --quick"
	$(BIN)/python -m benchmarks $(ARGS)

calibrate: .venv/dev  ## how often the reports' claims and intervals are right, simulated: 20 minutes; writes docs/reference/calibration.md
	$(BIN)/python -m benchmarks.calibration --write

mutants: .venv/dev  ## mutation testing of metrics, stats, config and data: hours; SAMPLE=600 SEED=1, ONLY="stats metrics"; writes docs/reference/mutation.md
	$(BIN)/python -m benchmarks.mutants $(SAMPLE:%=--sample %) $(SEED:%=--seed %) $(if $(ONLY),--only $(ONLY)) $(ARGS)

flips: .venv/dev  ## flip 2,000 bits in the files of a run: each is named or changes nothing; a minute
	LORALAB_FLIPS=2000 $(PYTEST) tests/storage/test_bit_flips.py

fuzz: .venv/fuzz  ## coverage-guided fuzzing of all readers and requests, on Linux: 20 minutes; SECONDS_EACH=300 TARGETS="pickle 'HTTP service'"
	$(BIN)/python tests/fuzz $(TARGETS) --seconds $(or $(SECONDS_EACH),60)
	$(BIN)/python tests/fuzz --table

faults: .venv/dev  ## break commands N times, as kills, full disks and damaged files do: 1,000 in half an hour; SEED=1, or CASE=train/kill/op-17
	PYTHONPATH=src:tests:tests/faults $(BIN)/python tests/faults/run_faults.py $(N:%=--count %) $(SEED:%=--seed %) $(CASE:%=--case %) $(ARGS)

clean:  ## remove the virtual environment, caches and the built documentation; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache mutants site

# torch first, on its own: otherwise a later package pulls in the newest build with gigabytes of CUDA libraries.
# Without --no-compile pip compiles every module of torch and others, most of which are never imported: 10 s more.
.venv/demo: pyproject.toml constraints.txt
	@echo "setting up .venv (some minutes, once)"
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	@touch $@

.venv/dev: .venv/demo
	$(PIP) --editable ".[dev]"
	@touch $@

.venv/fuzz: .venv/dev
	$(PIP) --editable ".[fuzz]"
	@touch $@
