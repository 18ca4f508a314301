# Every target makes the virtual environment that it needs. Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?=
# One process for each core, a file of tests at a time; PARALLEL= for a single process, such as for a debugger.
PARALLEL ?= -n auto --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo docs test test-all lint format package clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## Make .venv with the package (editable) and the development tools

demo: $(VENV)/.run ## Run the main job on the bundled model and data (DEMO_ARGS="--out DIR")
	$(BIN)/ohmformer demo $(DEMO_ARGS)

docs: $(VENV)/.dev ## Build the documentation site into build/docs; warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo 'open build/docs/index.html'

test: lint ## Check style, types and behavior (PYTEST_ARGS="tests/house -x")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(strip $(SLOW) $(PYTEST_ARGS))

test-all: SLOW := -m "slow or not slow"
test-all: test ## The same, slow tests included

lint: $(VENV)/.dev ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

package: $(VENV)/.dev ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean: ## Remove all that make made, .venv included
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# timm without its dependencies: it works without torchvision here, and torchvision would bring another torch.
# Stamps: .made, an empty environment; .run, with the package; .dev, with the development tools as well.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps timm
	@touch $(VENV)/.run $@
