# Each line is a command that you could type yourself; README.md says what to type where there is no make.
# PYTHON chooses the interpreter, ARGS is handed on: make report PYTHON=python3.12 ARGS="cifar10 --budget cpu"

PYTHON ?= python3
ARGS ?=

.PHONY: report check test lab bench lock clean

report: .venv/installed
	.venv/bin/lwnb report $(ARGS)

check: .venv/installed
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m pytest -m "not slow" $(ARGS)

test: .venv/installed
	.venv/bin/python -m pytest $(ARGS)

lab: .venv/installed
	.venv/bin/jupyter lab notebooks $(ARGS)

bench: .venv/installed
	.venv/bin/python -m benchmarks $(ARGS)

# Written last, so that an interrupted installation is done again. setuptools comes from the lock, too.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("lwnb needs Python 3.11 or later; $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --requirement requirements.lock
	.venv/bin/python -m pip install --no-build-isolation --no-deps --editable .
	touch .venv/installed

# Keeps every version that still fits pyproject.toml. Newer ones: make lock ARGS=--upgrade
lock: build/uv
	build/uv/bin/uv pip compile pyproject.toml --extra dev --extra bench --extra edge --extra openvino --universal --python-version 3.11 --no-annotate \
		--custom-compile-command "make lock  (for Python 3.11 and later on Linux, macOS and Windows)" \
		--output-file requirements.lock $(ARGS)

build/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install uv

clean:
	rm -rf build
