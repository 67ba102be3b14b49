# Everything a checkout needs. `make match` and `make test` set up what they use.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# Gradio holds Pillow back (CONTRIBUTING.md), so it stays out of $(VENV).
WEB := .venv-web
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
PIP := -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
INSTALL := $(BIN)/python $(PIP)

.PHONY: setup match test test-slow web test-web bench docs lint clean

setup: $(VENV)/core.stamp

match: setup
	@$(BIN)/python match.py assets/demo0.jpg assets/demo1.jpg offline=true \
		output=outputs/demo/matches.h5

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow --timeout 3600

web: $(WEB)/core.stamp
	$(WEB)/bin/python -m matcher.web

test-web: $(WEB)/dev.stamp
	$(WEB)/bin/python -m pytest -m 'slow or not slow' tests/web/test_web.py tests/web/test_web_browser.py

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks --report docs/records/performance.md

docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/core.stamp: pyproject.toml requirements.lock
	$(if $(PYTHON),,$(error Python 3.11, 3.12 or 3.13 with venv is needed; set PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/bench.stamp: $(VENV)/dev.stamp
	$(INSTALL) --editable '.[dev,bench]'
	@touch $@

$(WEB)/core.stamp: pyproject.toml requirements.lock
	$(if $(PYTHON),,$(error Python 3.11, 3.12 or 3.13 with venv is needed; set PYTHON=/path/to/python))
	$(PYTHON) -m venv $(WEB)
	$(WEB)/bin/python $(PIP) --editable '.[web,sfm]'
	@touch $@

$(WEB)/dev.stamp: $(WEB)/core.stamp
	$(WEB)/bin/python $(PIP) pytest pytest-timeout selenium
	@touch $@

clean:
	rm -rf $(VENV) $(WEB) outputs site
