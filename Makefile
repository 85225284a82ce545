# make book    builds the book into _build/html (executes the chapters that changed)
# make test    runs every check, tests in the rendered pages included
# Both make their own environment in .venv the first time. See `make help`.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := book,dicom,train,explain,dev
PORT ?= 8000
FORCE ?=

# Quiet, offline, and as many threads as the machine gives.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TRANSFORMERS_VERBOSITY := error
export DIFFUSERS_VERBOSITY := error
export TOKENIZERS_PARALLELISM := false
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export FORCE

.DEFAULT_GOAL := help
.PHONY: help setup book test lint serve notebooks measure constraints clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make the environment in .venv (the others call it)

$(STAMP): pyproject.toml constraints/cpu-py311.txt tools/install.sh
	@bash tools/install.sh "$(PYTHON)" "$(VENV)" "$(EXTRAS)"
	@touch $@

book: $(STAMP)  ## build the book: _build/html/index.html
	@$(BIN)/python tools/book.py

test: $(STAMP)  ## every check; FORCE=1 repeats what has passed unchanged
	@$(MAKE) --no-print-directory lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not browser and not full_size" tests
	@$(BIN)/python tools/book.py
	@$(BIN)/python tools/once.py rendered-and-slow-tests tests book tools mame_lib pyproject.toml _build/html -- \
	  $(BIN)/python -m pytest -q -m "slow or browser" tests
	@$(BIN)/python tools/once.py full-size-tests tests/test_full_size.py mame_lib pyproject.toml -- \
	  $(BIN)/python -m pytest -q -m full_size tests/test_full_size.py
	@echo "make test: everything passed."

lint: $(STAMP)  ## ruff and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

serve: book  ## read the book at http://localhost:8000 (PORT=… for another port)
	@echo "The book: http://localhost:$(PORT)   (Ctrl-C stops)"
	@$(BIN)/python -m http.server --directory _build/html --bind 127.0.0.1 $(PORT)

measure: $(STAMP)  ## copy the measured time and memory of the chapters into book/measured.json
	@$(BIN)/python tools/chapters.py
	@$(BIN)/python tools/measure.py --write

notebooks: $(STAMP)  ## write the notebooks beside the chapters
	@$(BIN)/python tools/notebooks.py --write

constraints: $(STAMP)  ## rewrite constraints/cpu-py311.txt from what .venv holds now
	@$(BIN)/python tools/digest.py freeze > constraints/.new && mv constraints/.new constraints/cpu-py311.txt

clean:  ## remove what was built (the environment stays; rm -rf .venv removes that too)
	rm -rf _build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
