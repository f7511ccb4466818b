# Thin recipes: set-up is an editable install, with the developer's tools only where they are needed.
MODEL ?=
CALIBRATION ?=
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(if $(shell command -v uv 2>/dev/null),uv pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet)

.PHONY: run test
.DEFAULT_GOAL := run

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) -e .
	touch $@

.venv/developing: .venv/installed
	$(INSTALL) -e ".[dev]"
	touch $@

run: .venv/installed
	$(BIN)/layerimp run --scorer avss $(if $(MODEL),--model "$(MODEL)") $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(ARGS)

test: .venv/developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist loadfile
	$(BIN)/python docs/tools/write_pages.py
	$(BIN)/zensical build --strict --clean
