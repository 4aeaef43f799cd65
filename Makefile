# The study of ibcore. `make help` lists what there is. Works with GNU make 3.81 and later.
PYTHON ?= python3
JOBS ?= 1
CORES ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
SNAKEMAKE = XDG_CACHE_HOME="$(CURDIR)/.snakemake/cache" \
  $(BIN)/snakemake --quiet rules --cores $(CORES) --keep-going --rerun-incomplete --nolock
PAGE = build/$(1)/book/_build/html/index.html

# Threads sleep while they wait: spinning ones slow small networks many times over on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help study thesis present verify-record record-book test test-plain lint bench bench-reference reference clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ibcore needs Python 3.11 or later, '$(PYTHON)' is not. Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a few minutes, once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[study,test]"
	@touch $@

study: $(READY) ## environment, all notebooks in the smoke profile, book
	$(SNAKEMAKE) --config profile=smoke pooled=yes
	@echo "The book: file://$(CURDIR)/$(call PAGE,smoke)"

thesis: $(READY) ## the published settings (some seven hours on two cores); renews the record in book/
	$(SNAKEMAKE) record --config profile=thesis
	$(SNAKEMAKE) --config profile=record
	@echo "The record: book/tables, book/notebooks, book/figures.md. The book: file://$(CURDIR)/$(call PAGE,record)"

present: $(READY) ## draw and tell the record again from its tables, nothing is trained (minutes)
	$(SNAKEMAKE) record --config profile=thesis tables=book/tables
	$(SNAKEMAKE) --config profile=record

verify-record: $(READY) ## run some jobs of the record again and compare (JOBS=1 of each chapter)
	OMP_NUM_THREADS=1 $(BIN)/python -m study.verify book/tables --jobs $(JOBS)

record-book: $(READY) ## the book of the committed record, warnings are errors
	$(SNAKEMAKE) --config profile=record
	@echo "The book: file://$(CURDIR)/$(call PAGE,record)"

test: lint record-book ## lint, types, book of the record, unit and property tests, nbval
	$(BIN)/python -m pytest -n $(CORES) --dist worksteal
	OMP_NUM_THREADS=1 STUDY_TABLES="$(CURDIR)/tests/reference/tables" \
	  $(BIN)/python -m pytest -n $(CORES) --dist loadfile --nbval tests/reference

test-plain: $(READY) ## the fast tests again, with one thread and torch's plainest kernels
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n $(CORES) --dist worksteal -m "not slow"

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## speed and memory, as ratios measured in one run
	$(BIN)/python -m benchmarks

REFERENCE := .venv-reference
$(REFERENCE)/ready:
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/pip install --quiet benchmark-mi==0.1.3 "numpy<2" jax==0.4.30 jaxlib==0.4.30
	@touch $@

bench-reference: $(REFERENCE)/ready ## samples and estimates of benchmark-mi, for make bench (an hour; its own environment)
	$(REFERENCE)/bin/python benchmarks/reference.py samples build/reference
	OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false" \
	  $(REFERENCE)/bin/python benchmarks/reference.py estimates build/reference

reference: $(READY) ## renew tests/reference from a smoke run
	$(SNAKEMAKE) reference --config profile=smoke pooled=yes

clean: ## remove what was made, except the environment (.venv) and the record
	rm -rf build .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis
