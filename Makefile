# make demo        find objects in real photographs with the shipped detector; needs no torch
# make test        lint, type-check and test
# make test-slow   the tests that take minutes
# make docs        the site of docs/ into site/, every link checked
# make lock        write constraints.txt anew from a fresh resolution

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process a core, up to eight, each with one thread: networks this small gain nothing from a second.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow lint docs lock clean

demo: $(VENV)/demo.done
	$(BIN)/vovnet predict skimage:astronaut skimage:chelsea skimage:motorcycle_left skimage:camera

test: lint
	$(PYTEST)

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

test-slow: $(VENV)/dev.done
	$(PYTEST) -m slow --timeout 900

docs: $(VENV)/docs.done
	$(BIN)/zensical build --strict --config-file mkdocs.yml

# Compiled ahead is what is never imported, too; that took most of the time.
$(VENV)/demo.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --no-compile --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/dev.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/docs.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[docs]'
	touch $@

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install -qq '.[dev,docs]'
	$(VENV)-lock/bin/python -m pip freeze --exclude vovnet > constraints.txt
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) site .cache .pytest_cache .ruff_cache .hypothesis
