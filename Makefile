# SPDX-License-Identifier: Apache-2.0
# `make` alone says what there is.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
ifneq ($(SAMPLE),)
CRASH_ARGS += --sample $(SAMPLE)
endif

.PHONY: help demo check check-crash check-tests benchmark docs lint test clean

help:
	@echo "make demo         the main job on a real image; make demo IMAGE=path for one of yours"
	@echo "make check        everything that has to be right, in some minutes"
	@echo "make check-crash  every crash point of every operation"
	@echo "make check-tests  proves that the tests notice a verb that does nothing"
	@echo "make benchmark    against the bare tools"
	@echo "make docs         writes the API reference and the other generated files"
	@echo "make clean        removes what was built"

# Distribution packages first, then the Python parts, from the distribution's own interpreter.
$(READY): pyproject.toml packaging/install-dependencies
	packaging/install-dependencies
	/usr/bin/python3 -m venv --system-site-packages $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[service,ctl,test]'
	touch $@

demo: $(READY)
	$(PYTHON) -m examples.demo $(if $(IMAGE),--image "$(IMAGE)")

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache | tail -n 12

test: $(READY)
	$(PYTHON) -m pytest --numprocesses auto --maxprocesses 4

check: lint test

check-crash: $(READY)
	$(PYTHON) -m tests.crash $(CRASH_ARGS)

check-tests: $(READY)
	$(PYTHON) -m tests.mutation

benchmark: $(READY)
	$(PYTHON) -m benchmarks

docs: $(READY)
	$(PYTHON) -m libvdsm.generate schema
	$(PYTHON) -m libvdsm.generate docs
	$(PYTHON) -m hsm.generate

clean:
	rm -rf $(VENV) build *.egg-info
