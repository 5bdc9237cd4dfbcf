# Every target creates the virtual environment the first time, and renews it when pyproject.toml or
# constraints.txt changed. VENV=folder chooses another place, PYTHON=python3.12 another interpreter,
# PROCESSES=1 runs one test at a time. The tests of a file stay in one process.

VENV ?= .venv
PYTHON ?= python3
CONFIG ?= configs/local.yaml
PROCESSES ?= 2
PYTEST = $(VENV)/bin/python -m pytest
PARALLEL = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
COMPILING = tests/live/test_parity.py tests/envs/test_vector_env.py tests/learning/test_compiled.py
THE_OTHERS = $(COMPILING:%=--ignore=%)
ON_ITS_OWN = not soak and not faults and not cluster and not docker and not kubernetes
INSTALLED = $(VENV)/.installed

.PHONY: install run lint kernels test test-all soak year kills faults test-cluster test-kubernetes test-image sbom lock docs coverage wheel audit bench

install: $(INSTALLED)

run: $(INSTALLED)
	$(VENV)/bin/trading up --config $(CONFIG)

lint: $(INSTALLED)
	@echo "== format, lint and types"
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Tests that use every kernel: once, before several processes would all compile them. Nothing is
# compiled where it was compiled before.
kernels: $(INSTALLED)
	@echo "== kernels: compiled where they are not yet, which takes a minute or three"
	$(PYTEST) $(COMPILING)

# What a change should pass while one works on it; `test-all` is all that CI asks.
test: lint kernels
	@echo "== tests, but those that take long: all of them by 'make test-all'"
	$(PYTEST) $(PARALLEL) $(THE_OTHERS) -m "not long and $(ON_ITS_OWN)"

test-all: lint kernels
	@echo "== all tests, but those that have a target of their own"
	$(PYTEST) $(PARALLEL) $(THE_OTHERS) -m "$(ON_ITS_OWN)"

soak: $(INSTALLED)
	$(PYTEST) $(PARALLEL) -m soak --ignore tests/live/test_year.py

# A simulated year with splits, dividends, renames, delistings, halts and bad prints, to the cent.
year: $(INSTALLED)
	$(PYTEST) -m soak -s tests/live/test_year.py

# Parts that hang, full disks and kills of which test-all runs the short form.
faults: $(INSTALLED)
	$(PYTEST) -m faults

# Every part of a running application, killed KILLS times each; the report: var/kills.md
kills: $(INSTALLED)
	mkdir -p var
	KILLS=$(or $(KILLS),20) KILLS_REPORT=var/kills.md $(PYTEST) tests/e2e/test_kills.py

# Two clusters of Ray that hand an account over, as root.
test-cluster: $(INSTALLED)
	$(PYTEST) -m cluster

# Every form of the bot on the cluster of the current kubeconfig; IMAGE=name:tag takes one that the
# cluster has or can pull, else the image is built and loaded. The report: var/kubernetes-report.md
test-kubernetes: $(INSTALLED)
	IMAGE=$(IMAGE) $(PYTEST) -m kubernetes tests/kubernetes

# Builds the image and runs it, as root on Debian: apt-get install docker.io debootstrap
test-image: $(INSTALLED)
	$(PYTEST) -m docker

# What the image is made of, as CycloneDX: the packages that the application needs, nothing else.
sbom:
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PYTHON) -m venv "$$fresh/app" && $(PYTHON) -m venv "$$fresh/tool" && \
	"$$fresh"/app/bin/pip install -q -c constraints.txt . && \
	"$$fresh"/tool/bin/pip install -q cyclonedx-bom==7.5.0 && \
	"$$fresh"/tool/bin/cyclonedx-py environment --output-reproducible \
	  --pyproject pyproject.toml --output-file sbom.cdx.json "$$fresh"/app/bin/python

# The pages of docs/ as a site in var/site; a link or an anchor that leads nowhere ends it.
docs: $(INSTALLED)
	$(VENV)/bin/pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

# Every benchmark in short form, each beside its peers, into docs/benchmarks.md: a quarter of an hour
# on two quiet cores. BENCH="learning feed" runs these alone, LONG=1 the long form.
bench: $(INSTALLED)
	$(VENV)/bin/pip install -q -c constraints.txt -e '.[dev,bench]'
	$(VENV)/bin/python benchmarks/report.py $(BENCH) $(if $(LONG),--long)

# One figure of everything: lines and branches, of what is not compiled, that the tests of test-all
# pass, and the commands that they start; of one package by its own tests with PACKAGE=execution. A
# test that fails ends it without a figure.
coverage: $(INSTALLED)
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest $(PARALLEL) $(PACKAGE:%=tests/%) -m "$(ON_ITS_OWN)"
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report $(PACKAGE:%=--include="trading/%/*")

# What a release is made of: an sdist and a wheel in dist/.
wheel:
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PYTHON) -m venv "$$fresh" && \
	"$$fresh"/bin/pip install -q build==1.6.1 && \
	"$$fresh"/bin/python -m build

# Known faults of what the application and its tests are made of, as PyPI tells them.
audit:
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PYTHON) -m venv "$$fresh" && \
	"$$fresh"/bin/pip install -q pip-audit==2.10.1 && \
	"$$fresh"/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# The newest versions that pyproject.toml allows. Platform builds (+cpu, CUDA) are left to pip.
lock:
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PYTHON) -m venv "$$fresh" && \
	"$$fresh"/bin/pip install -e '.[dev,bench,docs]' && \
	"$$fresh"/bin/pip freeze --all --exclude-editable \
	  | sed -E -e '/^(pip|nvidia-|cuda-|triton)/d' -e 's/\+[a-z0-9.]+$$//' > constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e '.[dev]'
	touch $@
