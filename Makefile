# twistedsock. `make run` and `make test` need Python 3.11 or newer and nothing else.
#
#   make run      serve echo-reply on 127.0.0.1:8888, TCP and UDP, in the foreground
#   make test     run the tests
#   make check    everything that must hold: format, lint, types, tests (CI runs this)
#   make twisted-suite   Twisted's own tests of its transports, against ours
#   make bench    measure against other servers, side by side
#   make matrix   the tests on every Python that is here
#   make deps     install the Debian packages that some tests use (as root)
#   make clean    remove what make made

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PORT ?= 8888
MATRIX = 3.11 3.12 3.13

.PHONY: run test check format twisted-suite bench matrix deps clean

# Each environment is complete once its stamp is newer than pyproject.toml.
$(VENV)/.run: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

run: $(VENV)/.run
	exec $(BIN)/twistd --nodaemon --pidfile= sockservice --port $(PORT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 $(PYTEST_FLAGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test PYTEST_FLAGS=--slow

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

twisted-suite: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[twisted-suite]'
	cd tests && ../$(BIN)/python twisted_suite.py

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH_FLAGS)

matrix:
	for version in $(MATRIX); do \
	  python=$$(command -v python$$version) && $$python --version >/dev/null 2>&1 \
	    || python=$$(ls -d $$HOME/.pyenv/versions/$$version.*/bin/python 2>/dev/null | tail -n 1); \
	  if [ -z "$$python" ]; then echo "Python $$version is not here: skipped"; continue; fi; \
	  $(MAKE) test PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done

deps:
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends fping iproute2 linux-libc-dev logrotate ncat \
	  netcat-openbsd nftables nmap procps socat strace systemd tcpdump tshark
	# For make bench as well: gcc, and golang-go for one more peer.

clean:
	rm -rf $(VENV) .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
