# Needs make, Python 3.11 or newer and a package registry; sets up the rest in an environment of
# its own. `make PYTHON=python3.13 test` uses that Python (in .venv-3.13); ARGS is passed on.

export NEEDED_OF_PYTHON
define NEEDED_OF_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("guardrail needs Python 3.11 or newer, but `%s` is %d.%d; name another: "
             "make PYTHON=/path/to/python3.13" % ((sys.executable,) + sys.version_info[:2]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("`%s` comes without ensurepip or venv; install them (on Debian and Ubuntu: apt-get "
             "install python3-venv) or name another: make PYTHON=/path/to/python3.13"
             % sys.executable)
endef

ifeq ($(origin PYTHON),undefined)
FITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(FITS)' >/dev/null 2>&1 && echo $$python && exit; done; echo python3)
VENV = .venv
else
VENV = .venv-$(VERSION)
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
BIN = $(VENV)/bin
READY = $(VENV)/.ready-$(VERSION)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Also where Python is told to keep nothing that it compiled: each worker, and each of the hundreds of
# processes that tests start, would compile all of it anew.
TESTS = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.PHONY: help demo test test-hosts in-hosts test-lowest in-lowest lint docs bench clean
.NOTPARALLEL:

help: ## list what can be made
	@awk -F ': .*## ' '/^[a-z-]+: .*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## replay a week of sample traffic, then a campaign, under the example policies
	$(BIN)/guardrail check policies/ --traffic examples/traffic/sample-week.jsonl.gz $(ARGS)
	@echo
	$(BIN)/guardrail simulate policies/ --beside account --accounts 250 --days 14 --seed 30 --workers 2

test: $(VENV)/.test $(VENV)/.browser $(VENV)/.editor ## run every test
	$(TESTS) -n auto --dist worksteal $(ARGS)

# LiteLLM's proxy weighs some 800 MB and needs versions of its own: another environment.
test-hosts: ## run the tests in LiteLLM's real proxy, for those who work on it
	@$(MAKE) --no-print-directory VENV=$(VENV)-hosts in-hosts

in-hosts: $(VENV)/.hosts
	$(TESTS) tests/litellm -W ignore $(ARGS)

test-lowest: ## run the tests of what stands on other packages over their lowest versions
	@$(MAKE) --no-print-directory VENV=$(VENV)-lowest in-lowest

# What old versions call deprecated in new ones is theirs to mend.
in-lowest: $(VENV)/.lowest
	$(TESTS) -n auto --dist worksteal -W ignore::DeprecationWarning \
		tests/cells tests/loading tests/signals $(ARGS)

lint: $(VENV)/.lint ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

docs: $(VENV)/.docs ## build the documentation site in build/docs; a broken link is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs/site . build/docs $(ARGS)
	@echo "open build/docs/docs/index.html"

bench: $(VENV)/.bench ## measure what decisions cost
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove the environments and everything made
	rm -rf .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that fits is kept; one of another version, or left half made, is made anew.
$(READY):
	@command -v $(PYTHON) >/dev/null || { echo "no \`$(PYTHON)\` here; install Python 3.11 or newer," \
		"or name one: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@$(PYTHON) -c "$$NEEDED_OF_PYTHON"
	@$(BIN)/python -m pip --version 2>/dev/null | grep -q '(python $(VERSION))$$' \
		|| $(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml $(READY)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.lowest: pyproject.toml scripts/lowest.py $(READY)
	$(BIN)/python scripts/lowest.py > $(VENV)/lowest.txt
	$(INSTALL) --editable '.[fastapi,jwt,lmdb,redis]' --group lowest --constraint $(VENV)/lowest.txt
	@touch $@

# The tests of pages drive a browser; where none can be had they are skipped, and say so.
$(VENV)/.browser: scripts/browser.py $(READY)
	$(BIN)/python -m scripts.browser $(VENV)/browser
	@touch $@

# From npm, where it is there: a language server for the tests of editors, and what judges pages by
# the rules for people who read them otherwise.
$(VENV)/.editor: $(READY)
	@command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix $(VENV)/editor \
		yaml-language-server@1 axe-core@4 >/dev/null || echo "the tests of editors and some of pages are skipped" >&2
	@touch $@

# pip compiles one file after another; what no Python of this version can compile stays as it is.
$(VENV)/.%: pyproject.toml $(READY)
	$(INSTALL) --no-compile --editable . --group $*
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@
