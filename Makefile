# Everything that a clean clone needs: each target sets up what it uses and is quick when nothing changed.
#
#   make setup   the virtual environment in .venv, with the compiled core
#   make run     the demo guest, on KVM or, without it, on a software CPU
#   make test    lint, the sanitizer harness of the core, the documentation, the test suite, sdist and wheel
#   make docs    the documentation as a site in build/site, strictly: a link that leads nowhere fails it
#   make bench   the benchmark suites        make soak    the tests that run for minutes
#   make lint    ruff, mypy, import floors   make clean   removes what was built, .venv included

SHELL  := /bin/sh
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet
NATIVE := $(filter-out native/_core.c,$(wildcard native/*.c native/*.h native/*.cdef native/*.py native/measure/*))
# One builder at a time: setuptools' build directory is shared.
BUILD  := flock build/.lock $(PY) setup.py -q build_ext --inplace

.PHONY: setup core stub run test docs test-docs bench soak guests acceptance lint native-test check-dist test-tools clean
.DELETE_ON_ERROR:

# The bytecode is written as an installation's is: where Python is told to write none, every process that a test starts
# would compile what it imports, which takes longer than most tests.
setup: $(VENV)/.installed $(VENV)/.core
	@$(PY) -m compileall -q shardio devices bench tests

$(VENV)/.created:
	@python=$$(tools/prerequisites "$(PYTHON)") && "$$python" -m venv $(VENV)
	@$(PIP) install --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml setup.py
	@echo "installing shardio and its tools into $(VENV)"
	@$(PIP) install 'setuptools>=77' 'cffi>=1.16'
	@mkdir -p build
	@flock build/.lock $(PIP) install --no-build-isolation --editable '.[dev]' 2>build/install.log || \
	    { cat build/install.log >&2; exit 1; }
	@touch $@

# The editable install has built the core once; afterwards only a change in native/ builds it again.
$(VENV)/.core: $(VENV)/.installed $(NATIVE)
	@tools/prerequisites "$(PYTHON)" >/dev/null
	@echo "building the compiled core"
	@mkdir -p build
	@$(BUILD)
	@touch $@

core: $(VENV)/.core

# The typed stub of the core, tracked; after a change in native/*.cdef.
stub: setup
	@$(PY) tools/make_stub.py

run: setup
	@$(PY) -m shardio demo

# These parts do not need each other and are made two at a time; the test suite runs alone, since some of it measures.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line native-test lint test-tools test-docs check-dist
	@$(PY) -m pytest -q

docs: setup $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict # with --quiet it would count no warning
	@echo "the documentation is in build/site/index.html"

# The same, except where the packages that build it cannot be fetched.
test-docs: setup
	@if $(MAKE) --no-print-directory $(VENV)/.docs; then $(MAKE) --no-print-directory docs; else \
	    echo "shardio: the documentation is not built: its packages cannot be fetched"; fi

# What is in the extra `docs`, without building shardio again.
$(VENV)/.docs: $(VENV)/.installed
	@$(PY) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], \
	    sep='\n')" >build/docs.txt
	@$(PIP) install --retries 1 --timeout 20 --requirement build/docs.txt 2>build/docs.log || \
	    { cat build/docs.log >&2; exit 1; }
	@touch $@

# Guests that others wrote, fetched and built; kept outside the tree (see tests/acceptance/images.py).
guests: setup
	@$(PY) -m tests.acceptance.images

# All of them run. `make test` runs those that are there, or can be had within seconds.
acceptance: guests
	@$(PY) -m pytest -q -m 'soak or not soak' tests/acceptance

soak: setup
	@$(PY) -m pytest -q -m soak --timeout 1800

# Every suite runs; the status is 1 when a gate was missed, and its table names it.
bench: setup $(VENV)/.bench
	@status=0; for suite in quick kvm peers; do $(PY) -m shardio bench $$suite || status=1; done; \
	    $(PY) -m pytest -q bench || status=1; exit $$status

# The peers that the benchmarks compare with.
$(VENV)/.bench: $(VENV)/.installed
	@$(PIP) install --no-build-isolation --editable '.[bench]'
	@touch $@

lint: setup
	@$(PY) tools/make_stub.py --check
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

# The core's headers under ThreadSanitizer and AddressSanitizer + UndefinedBehaviorSanitizer.
native-test: setup
	@$(MAKE) --no-print-directory -C tests/native

# sdist and wheel, each installed into an environment of its own and used from outside the tree.
check-dist: setup
	@$(PY) tools/check_dist.py

# What some tests look with: they skip and say so where it is missing and cannot be installed.
test-tools:
	@tools/test_tools

clean:
	rm -rf $(VENV) build dist *.egg-info shardio/_core*.so shardio/_measure*.so native/_core.c tests/native/build tests/guests/build \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find shardio devices tests bench native -name __pycache__ -type d -exec rm -rf {} +
