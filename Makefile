# `make demo` and `make test` do all the set-up they need; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
# Tools that Snakemake and the scripts start are those of the environment.
export PATH := $(BIN):$(PATH)
DEMO := snakemake --directory demo --cores 2
SOURCES := scripts tests benchmarks config/demo
RULES := Snakefile rules tests/workflow/importer/Snakefile
# Two workers for two cores; tests/conftest.py says which tests stay together.
PYTEST := python -m pytest --numprocesses 2

.PHONY: help install demo check test test-slow test-all lint format schema clean

help:
	@echo "make install   make the environment .venv"
	@echo "make demo      run the workflow on demo recordings with Kilosort 4 on the CPU"
	@echo "make check     style, types, unit tests, the rules on stubs: five minutes"
	@echo "make test      the tests, with real sorters: a quarter of an hour"
	@echo "make test-all  these and the slow ones: faults, kills, Slurm, commands of the docs"
	@echo "make lint      check style, types, layers and rules"
	@echo "make format    format the sources"
	@echo "make schema    write the generated files: config schema, two pages of docs/"
	@echo "make clean     remove the demo and the environment"

# Each stamp is newer than the requirements that it was installed from.
$(VENV)/run.stamp: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/run.stamp
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

install: $(VENV)/run.stamp

demo: $(VENV)/run.stamp
	mkdir -p demo
	$(DEMO) --snakefile rules/demo.smk
	@# Exit status 1, since `missing` needs attention. What is to come out is checked instead.
	$(DEMO) --configfile config/demo/config.yaml || test $$? -eq 1
	@python config/demo/verdicts.py demo

check: lint
	$(PYTEST) -m "not medium and not slow"

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/dev.stamp
	$(PYTEST) -m slow

# Each test once. What fails in the first part does not hide what fails in the second.
test-all: $(VENV)/dev.stamp
	@status=0; for part in test test-slow; do \
		$(MAKE) --no-print-directory $$part || status=1; done; exit $$status

lint: $(VENV)/dev.stamp
	ruff format --check $(SOURCES)
	ruff check $(SOURCES)
	mypy
	lint-imports --no-cache
	snakefmt --check $(RULES)
	snakemake --lint
	snakemake --lint --snakefile tests/workflow/importer/Snakefile --directory tests/workflow/importer
	snakemake --lint --snakefile rules/demo.smk

format: $(VENV)/dev.stamp
	ruff format $(SOURCES)
	ruff check --fix $(SOURCES)
	snakefmt $(RULES)

schema: $(VENV)/run.stamp
	python -m spikecanary.config > config/schemas/config.schema.json
	python -m spikecanary.reference

clean:
	rm -rf demo $(VENV)
