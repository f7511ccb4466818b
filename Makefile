# Thin recipes: all set-up is one editable install.
MODEL ?=
CALIBRATION ?=
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test
.DEFAULT_GOAL := run

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

run: .venv/installed
	$(BIN)/layerimp run --scorer avss $(if $(MODEL),--model "$(MODEL)") $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(ARGS)

test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile
	$(BIN)/mkdocs build --quiet --strict
