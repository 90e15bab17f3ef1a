# make demo   find objects in real photographs with the shipped detector
# make test   lint, type-check and test
# make lock   write constraints.txt anew from a fresh resolution

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint lock clean

demo: $(VENV)/demo.done
	$(BIN)/vovnet predict skimage:astronaut skimage:chelsea skimage:motorcycle_left skimage:camera

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

test-slow: $(VENV)/dev.done
	$(BIN)/python -m pytest -m slow

$(VENV)/demo.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/dev.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	touch $@

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install -qq '.[dev]'
	$(VENV)-lock/bin/python -m pip freeze --exclude vovnet > constraints.txt
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
