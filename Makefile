# Two commands work on a fresh machine with Python 3.11: `make demo` and `make test`. Each does its own set-up.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin

.PHONY: demo test bench lint soak clean

demo: .venv/.run
	$(BIN)/espmon demo

test: .venv/.dev
	$(BIN)/python -m pytest

bench: .venv/.dev
	$(BIN)/python -m tests.bench $(AREA)

# What the daemon promises, measured on this machine; `make soak SOAK=--long` takes the full sizes (hours).
soak: .venv/.dev
	$(BIN)/python -m tests.soak.daemon $(SOAK)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform win32
	$(BIN)/mypy --platform darwin
	$(BIN)/lint-imports

clean:
	rm -rf .venv build dist

.venv/pyvenv.cfg:
ifdef UV
	uv venv --quiet --allow-existing --python '>=3.11' .venv
else
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "No venv module: run 'apt-get install python3-venv' first." >&2; exit 1; }
endif

# .run: what users get; .dev: tests, types and lint as well.
.venv/.run: .venv/pyvenv.cfg pyproject.toml
ifdef UV
	uv pip install --quiet --python $(BIN)/python -e .
else
	$(BIN)/python -m pip --disable-pip-version-check install --quiet -e .
endif
	touch $@

.venv/.dev: .venv/pyvenv.cfg pyproject.toml
ifdef UV
	uv pip install --quiet --python $(BIN)/python -e '.[dev]'
else
	$(BIN)/python -m pip --disable-pip-version-check install --quiet -e '.[dev]'
endif
	touch $@ .venv/.run
