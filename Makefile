# make demo: set up, train on the embedded digits, sample, evaluate, write the report.
# make test: set up, lint, test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

.PHONY: demo test lint clean

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"ancestral needs Python 3.11 or newer, got {v[0]}.{v[1]}; give another one with make PYTHON=python3.12") if v < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/ancestral train vqvae --recipe digits --data digits --out $(DEMO)
	$(BIN)/ancestral sample $(DEMO)
	$(BIN)/ancestral evaluate $(DEMO)
	$(BIN)/ancestral report $(DEMO)
	@echo
	@echo "samples: $(DEMO)/samples/samples-seed0.png"
	@echo "report:  $(DEMO)/report.html"

lint: $(VENV)/installed-test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint
	$(BIN)/pytest

clean:
	rm -rf $(VENV) build dist
