# `make demo` and `make test` do all the set-up they need; `make help` lists the rest.

PYTHON ?= python3
# The build of PyTorch, of a new environment: cpu, cu126, cu130, ... (docs/install.md). Empty: PyPI's.
TORCH ?=
VENV := .venv
BIN := $(abspath $(VENV))/bin
# Tools that Snakemake and the scripts start are those of the environment.
export PATH := $(BIN):$(PATH)
DEMO := snakemake --directory demo --cores 2
SOURCES := scripts tests benchmarks config/demo
RULES := Snakefile workflow rules tests/workflow/importer/Snakefile
# Three workers for two cores, since half of a test is waiting; tests/conftest.py says which stay together.
PYTEST := python -m pytest --numprocesses 3

.PHONY: help install demo check test test-slow test-all docs lint format schema lock clean

help:
	@echo "make install   make the environment .venv"
	@echo "make demo      run the workflow on demo recordings with Kilosort 4 on the CPU"
	@echo "make check     style, types, unit tests, the rules on stubs: five minutes"
	@echo "make test      the tests, with real sorters: 12 minutes"
	@echo "make test-all  these and the slow ones: faults, kills, Slurm, commands of the docs"
	@echo "make docs      the docs as a site, in site/"
	@echo "make lint      check style, types, layers and rules"
	@echo "make format    format the sources"
	@echo "make schema    write the generated files: config schema, pages of docs/ and config/"
	@echo "make lock      pin the versions of all packages: constraints.txt"
	@echo "make clean     remove the demo and the environment"

# uv where it is there, which also finds a Python that will do; else venv and pip. Same versions.
ifneq ($(shell command -v uv),)
MAKE_VENV := uv venv --quiet --seed --allow-existing $(VENV)
INSTALL := uv pip install --quiet --python $(VENV) $(addprefix --torch-backend ,$(TORCH))
else
MAKE_VENV := $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and \
	"Python 3.11, 3.12 or 3.13 is needed, or uv: make PYTHON=python3.12")' && $(PYTHON) -m venv $(VENV)
INSTALL := $(BIN)/pip install --quiet \
	$(addprefix --extra-index-url https://download.pytorch.org/whl/,$(TORCH))
endif

# Each stamp is newer than what it was installed from.
$(VENV)/run.stamp: constraints.txt pyproject.toml
	$(MAKE_VENV)
	$(INSTALL) --constraint constraints.txt --editable ".[all]"
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(INSTALL) --constraint constraints.txt --editable ".[all,dev]"
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

docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

lint: $(VENV)/dev.stamp docs
	ruff format --check $(SOURCES)
	ruff check $(SOURCES)
	mypy
	lint-imports --no-cache
	snakefmt --check $(RULES)
	snakemake --lint
	snakemake --lint --snakefile workflow/Snakefile
	snakemake --lint --snakefile tests/workflow/importer/Snakefile --directory tests/workflow/importer
	snakemake --lint --snakefile rules/demo.smk

format: $(VENV)/dev.stamp
	ruff format $(SOURCES)
	ruff check --fix $(SOURCES)
	snakefmt $(RULES)

schema: $(VENV)/run.stamp
	python -m spikecanary.reference

# Needs uv. Versions that stand stay: remove the lines of those to renew, or the file.
lock:
	uv pip compile --quiet --universal --no-annotate --custom-compile-command "make lock" \
		--extra all --extra dev pyproject.toml --output-file constraints.txt
	sed -i.bak "s/ ; python_full_version < '3.14' and (sys_platform == 'darwin' or sys_platform == 'linux')$$//" \
		constraints.txt && rm constraints.txt.bak

clean:
	rm -rf demo $(VENV)
