PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench bench-documents bench-findings lint check format clean

help: ## Show these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Hookline needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "Creating .venv …"; $(PYTHON) -m venv .venv; }
	@echo "Installing Hookline (about 15 s on a fast line) …"; $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml .venv/.demo
	@echo "Installing the development tools …"; $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/.demo ## Run six documents through a real service and show each signed webhook (KEEP=1 stays up)
	@$(BIN)/hookline demo $(if $(KEEP),--keep)

test: .venv/.dev ## What CI runs: every test at CI size
	$(PYTEST)

soak: .venv/.dev ## The same scenarios at full size; writes benchmarks/results/soak.md
	HOOKLINE_SOAK=1 $(BIN)/python -m pytest -m soak -s

bench: .venv/.dev ## Jobs, chains and requests per second beside Node's; writes benchmarks/results/bench.md
	$(BIN)/python -m benchmarks $(if $(WAITING),--waiting $(WAITING))

bench-documents: .venv/.dev ## What each hostile document costs; writes the table of docs/documents.md
	$(BIN)/python -m benchmarks.documents

bench-findings: .venv/.dev ## Precision, recall and speed of the compliance analysis; writes docs/compliance.md
	$(BIN)/python -m benchmarks.findings

lint: .venv/.dev ## Format, lint, strict types, import arrows
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## The same, and the unit tests
	$(PYTEST) tests/unit

format: .venv/.dev ## Rewrite the sources in the house format
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove what the commands above made
	rm -rf .venv .hookline .pytest_cache .mypy_cache .ruff_cache
