# First command on a fresh machine: `make search` or `make test` (each installs what it needs).

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One compute thread for each test process: faster together than processes that share all cores.
PYTEST := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 $(BIN)/python -m pytest

.PHONY: help install search lint docs test test-slow coverage test-faults test-gpu benchmark \
        benchmark-samplers gpu-report clean
.DEFAULT_GOAL := help

help:
	@echo "make install     .venv in this folder, with the tested versions (about 2 minutes, 7 GB)"
	@echo "make search      a search of 8 trials on the built-in data (minutes on a CPU)"
	@echo "make lint        formatting, ruff and mypy"
	@echo "make docs        the documentation as a site, build/site/index.html"
	@echo "make test        the tests that a change must pass; make test-slow: the long ones"
	@echo "make coverage    make test, and the share of lines that it runs"
	@echo "make test-faults a search with fifty random faults; FAULT_SEED=N chooses others"
	@echo "make test-gpu    the tests that need a GPU"
	@echo "make benchmark   measured rates and ratios"
	@echo "make benchmark-samplers  the samplers on tables that others made (hours)"
	@echo "make gpu-report  8 minutes of measuring on a GPU, written to docs/gpu.md;"
	@echo "                 with FLAGS='--data data/widerface' on WIDER FACE"
	@echo "make clean       removes .venv and caches; studies under runs/ stay"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

search: install
	$(BIN)/python -m nas.search --space search_spaces/quick.yaml --trials 8 --data synthetic
	@echo "(these commands need the environment: source $(BIN)/activate)"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: install
	$(PYTEST) -n $(JOBS) --dist worksteal $(FLAGS)

# A file's tests stay in one process: they share a server, a wheel, a dry run of many minutes.
test-slow: install
	$(PYTEST) -m slow -n $(JOBS) --dist loadfile $(FLAGS)

# A number to watch, no gate. Code that tests run in processes of their own does not count. Measuring
# takes half as long again as the tests themselves.
coverage: install
	$(PYTEST) -n $(JOBS) --dist worksteal --cov --cov-report= $(FLAGS)
	@echo "line coverage of the fast tests: $$($(BIN)/coverage report --format=total) %"

test-faults: install
	$(PYTEST) -m faults -s

test-gpu: install
	$(PYTEST) -m gpu

benchmark: install
	$(PYTEST) -m benchmark -s tests/benchmarks

# Resumes what build/samplers.jsonl has.
benchmark-samplers: install
	mkdir -p build
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[benchmark-samplers]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/sampler_judges.py --out build/samplers.jsonl $(FLAGS)

# What was measured is worth a page even where a part failed.
gpu-report: install
	-$(BIN)/python tests/benchmarks/gpu_report.py --out build/gpu-report $(FLAGS)
	$(BIN)/python tests/benchmarks/gpu_report.py --out build/gpu-report --render

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
