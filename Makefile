# Each target does all of its own set-up: a Python ≥ 3.12 is found, .venv is made, what the target
# needs is installed. When nothing has changed, set-up costs nothing. With JAX=lowest a target works in
# .venv-lowest, with the lowest versions that pyproject.toml admits.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: FORCE help demo gallery test check thorough contracts format format-check lint types layers doctest api \
	docs browser bench package release-check clean

JAX := newest
VENV := .venv$(if $(filter lowest,$(JAX)),-lowest)
BIN := $(VENV)/bin
CACHE := .pytest_cache/d/jax# compiled programs, kept between runs
CONTRACTS := $(addprefix tests/,parts/test_jax_contracts.py parts/test_contract.py parts/test_jax_internals.py \
	parts/test_krylov.py parts/test_stepping.py derivatives/test_rest.py users/test_plain_function.py)

##@ For users
help: ## what there is to make
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.ready-plot ## set up, then solve and draw the hare and the lynx
	$(BIN)/python examples/hare_lynx.py

gallery: $(VENV)/.ready-plot ## set up, then run every example in full and write examples/README.md
	$(BIN)/python tools/gallery.py

test: $(VENV)/.ready-dev ## set up, then run the tests; JAX=lowest: with the oldest JAX that is supported
	$(BIN)/pytest -m "not thorough and not long"

##@ For developers
check: format-check lint types doctest test ## all that a commit has to pass

# Annotations are checked by `check`; checking them takes a quarter of a long test, which traces much.
thorough: $(VENV)/.ready-dev ## the long tests: more methods and modes, every example; PART=0/3: a third
	DIFFEQ_CHECK_TYPES=0 DIFFEQ_PART=$(PART) $(BIN)/pytest -m "thorough or long"

contracts: $(VENV)/.ready-test ## how the parts of JAX behave that it does not document, and a few solves
	$(BIN)/pytest -m "not thorough" $(CONTRACTS)

format: $(VENV)/.ready-dev ## rewrite the code in the house format, with the safe fixes of the linter
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

format-check: $(VENV)/.ready-dev ## is all code in the house format?
	$(BIN)/ruff format --diff

lint: $(VENV)/.ready-dev ## the linter
	$(BIN)/ruff check

types: $(VENV)/.ready-dev ## the type checker
	$(BIN)/pyright

layers: $(VENV)/.ready-dev ## imports go strictly down; bodies are short
	$(BIN)/pytest -n 0 -q tests/static/test_layers.py tests/static/test_style.py

doctest: $(VENV)/.ready-dev ## every example in a docstring, as a user would run it
	JAX_COMPILATION_CACHE_DIR=$(CACHE) XLA_FLAGS=--xla_backend_optimization_level=0 \
		$(BIN)/pytest -q --doctest-modules src/diffeq

api: $(VENV)/.ready-dev ## write down the public API as it is now, and its stubs for type checkers
	$(BIN)/python tests/static/test_public.py
	$(BIN)/python tools/stubs.py

docs: $(VENV)/.ready-docs ## build the site in build/site, with links and anchors checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

browser: docs $(VENV)/.ready-browser ## look at the site in a headless Chromium, at three widths
	{ command -v chromium || command -v google-chrome; } >/dev/null || $(BIN)/playwright install chromium
	$(BIN)/pytest -n 0 -rs tests/static/test_site.py

bench: $(VENV)/.ready-bench ## set up, with the peers, then run the benchmarks
	$(BIN)/python -m benchmarks.run

package: $(VENV)/.ready-release ## build wheel and sdist; each is installed apart, and tries itself
	rm -rf build dist
	$(BIN)/python -m build
	@for archive in dist/*.whl dist/*.tar.gz; do \
		echo "Installing $$archive in an environment of its own ..."; \
		$(BIN)/python -m venv --clear build/apart && \
		build/apart/bin/python -m pip install --quiet "$$archive" && \
		(cd build && apart/bin/python -m diffeq.selftest) || exit 1; \
	done

release-check: $(VENV)/pyvenv.cfg ## is TAG=v1.2.3 the version of the package, of CITATION.cff and of CHANGELOG.md?
	$(BIN)/python tools/release.py $(TAG)

clean: ## remove what make and the tools wrote, .venv included
	rm -rf .venv .venv-lowest .pytest_cache .ruff_cache .hypothesis build dist

# ---- set-up -------------------------------------------------------------------------------------

# One stamp for each extra.
$(VENV)/.ready-%: $(VENV)/pyvenv.cfg pyproject.toml
	@echo "Installing diffeq with its extra '$*' ..."
	@: > $(VENV)/constraints.txt
	@$(if $(filter lowest,$(JAX)),$(BIN)/python tools/lowest.py > $(VENV)/constraints.txt)
	@$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[$*]'
	@touch $@

# The first interpreter wins that is new enough and can make a working venv: some systems ship a
# Python without ensurepip. Looked through: every python3* on the PATH, then the versions of pyenv.
# An environment whose interpreter has gone (after an upgrade of the system) is made again.
$(VENV)/pyvenv.cfg: $(shell test -x $(BIN)/python || echo FORCE)
	@IFS=:; \
	for dir in $$PATH "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin; do \
		set -- "$$@" "$$dir"/python3 "$$dir"/python3.[0-9] "$$dir"/python3.[0-9][0-9]; \
	done; \
	[ -z "$$PYTHON" ] || set -- "$$PYTHON"; \
	for python do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 || continue; \
		rm -rf $(VENV); \
		"$$python" -m venv $(VENV) >/dev/null 2>&1 && $(BIN)/python -m pip --version >/dev/null 2>&1 || continue; \
		echo "Made $(VENV) with $$python ($$($(BIN)/python --version))."; \
		exit 0; \
	done; \
	rm -rf $(VENV); \
	echo "diffeq needs a Python of version 3.12 or newer with the modules venv and ensurepip, and none" \
		"was found on the PATH or under pyenv. Install one (on Debian or Ubuntu also its package" \
		"python3-venv), or name one: make PYTHON=/path/to/python3 ..." >&2; \
	exit 1
