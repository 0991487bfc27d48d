# What a contributor runs; CI (.ci/run) runs the same in a fresh virtual environment.
PYTHON ?= python

.PHONY: install test lint docs

install: ## the package, editable, with everything that tests and tools need
	$(PYTHON) -m pip install -c constraints.txt -e ".[dev]"

test: ## the whole test suite; one file: make test TESTS=tests/test_ids.py
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 $(TESTS)

lint: ## formatting, lint and types, as CI checks them
	ruff format --check .
	ruff check .
	pyright

docs: ## the pages of the tasks, from their declarations; the board, from tables and submissions
	$(PYTHON) docs/generate.py
	$(PYTHON) benchmarks/write_board.py
