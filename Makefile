# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install demo test test-all test-s3 lint format clean

help:
	@echo "make demo      render a small library, make its reels and the report, say where they are"
	@echo "make test      the test suite (under 15 minutes on 2 cores)"
	@echo "make test-all  with the slow tests"
	@echo "make test-s3   the tests of storage against a real S3 server (Ceph), installed if it can be"
	@echo "make lint      ruff"

install: $(VENV)/.installed

# torch and torchvision are released in pairs: they are installed together.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

demo: install
	$(BIN)/reelmap demo demo

test: install
	$(BIN)/python -m pytest -m "not slow"

test-all: install
	$(BIN)/python -m pytest

test-s3: install
	$(BIN)/python -m tests.s3_rgw

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build *.egg-info .pytest_cache .ruff_cache
