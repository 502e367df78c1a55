# Everything here works on a fresh clone: Python 3.11 or later, pip and make; the virtual environment lies in this folder.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check format bench clean

demo: .venv/demo  ## fine-tune minilm on the built-in sample, classify two headlines, write a submission
	$(BIN)/loralab train quickstart --name demo --overwrite
	$(BIN)/loralab predict runs/demo --input "Oil slips below 50 dollars as stocks of crude rise" \
	  --input "Striker's late header sends the cup final into extra time"
	$(BIN)/loralab predict runs/demo --file examples/unlabelled.csv --format submission --out runs/demo-submission.csv --overwrite

test: check  ## every test: the fast ones first, then the slow
	$(BIN)/pytest -q --numprocesses auto --dist loadfile -m "slow and not gpu and not network"

check: .venv/dev  ## format, lint, types, layers and the fast tests: the same as CI's first part
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror src/loralab/model/kernels/*.[ch]
	$(BIN)/mypy
	$(BIN)/pytest -q --numprocesses auto --dist loadfile -m "not slow and not gpu and not network"

format: .venv/dev  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i src/loralab/model/kernels/*.[ch]

bench: .venv/dev  ## every benchmark against HF Trainer + peft and others, on an idle machine: an hour; ARGS="training --quick"
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the virtual environment and caches; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache

# torch comes first, by itself: a later package would otherwise pull in the newest build, with gigabytes for GPUs.
.venv/demo: pyproject.toml constraints.txt
	@echo "setting up .venv (some minutes, once)"
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	@touch $@

.venv/dev: .venv/demo
	$(PIP) --editable ".[dev]"
	@touch $@
