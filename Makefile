# Everything sets itself up in .venv, with the Python that PYTHON names. `make` alone lists the targets.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
APP_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := agent_stores samples tests $(wildcard benchmarks providers)

.DEFAULT_GOAL := help
.PHONY: help demo app test test-quick test-matrix check format docs bench clean

help:
	@echo "make demo    a conversation that survives the end of its process"
	@echo "make app     the chat application, in a browser"
	@echo "make test    all tests, real servers included; takes about 12 minutes"
	@echo "             (PYTEST_ARGS='-k name' for some of them)"
	@echo "make test-quick  those that need no server; takes about a minute"
	@echo "make test-matrix  the conformance suite on every backend, with encryption and attachments"
	@echo "make check   ruff, mypy and pyright"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make format  bring the code into its form"
	@echo "make bench   compare with other stores; takes about 20 minutes (BENCH_ARGS=--quick: about two)"
	@echo "make clean   remove .venv and everything that was generated"
	@echo
	@echo "PYTHON=python3.12 make ... takes another Python than python3 for a new .venv."

demo: .make/demo
	@$(BIN)/agent-stores demo

app: .make/app
	@$(BIN)/python -m streamlit run samples/chat_app/app.py $(APP_ARGS)

test: .make/dev
	@$(BIN)/python -m pytest -n auto --dist worksteal -q $(PYTEST_ARGS)

test-quick: .make/dev
	@$(BIN)/python -m pytest -n auto --dist worksteal -q tests/unit tests/conformance/test_conformance.py \
		-k "unit or (memory and not (limited or encrypted or attached))" $(PYTEST_ARGS)

test-matrix: .make/dev
	@$(BIN)/python -m pytest -n auto --dist worksteal -q --matrix tests/conformance $(PYTEST_ARGS)

docs: .make/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo "site/index.html"

check: .make/dev
	@status=0; $(BIN)/pyright --pythonpath $(BIN)/python >.make/pyright.txt 2>&1 & pyright=$$!; \
	for tool in "ruff check ." "ruff format --check ." mypy; do echo "$$tool"; $(BIN)/$$tool || status=1; done; \
	echo pyright; wait $$pyright || status=1; cat .make/pyright.txt; exit $$status

format: .make/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .make/dev
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

clean:
	rm -rf .venv .make dist build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# A new environment forgets what was installed in an old one.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "agent-stores needs Python 3.10 or newer, and '$(PYTHON)' is:" >&2; $(PYTHON) --version >&2; \
	echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making .venv ..."
	@rm -rf .make
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.make/demo: $(BIN)/python pyproject.toml
	@echo "Installing what the demo needs ..."
	@$(PIP) install -e '.[database,openai,cli]'
	@mkdir -p .make && touch $@

.make/app: $(BIN)/python pyproject.toml
	@echo "Installing what the chat application needs; the first time takes a minute or two ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install -e '.[all]' --group app
	@mkdir -p .make && touch $@ .make/demo

.make/docs: $(BIN)/python pyproject.toml
	@echo "Installing what the documentation needs ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install -e . --group docs
	@mkdir -p .make && touch $@

.make/dev: $(BIN)/python pyproject.toml
	@$< -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "The tests need Python 3.11 or newer, as some frameworks do, and .venv has:" >&2; $< --version >&2; \
	echo "Take another one: make clean; make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing the development tools; the first time takes a minute or two ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install -e . --group dev
	@mkdir -p .make && touch $@ .make/app .make/demo .make/docs
