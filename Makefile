# From a fresh clone: `make serve` runs the server, `make test` checks everything.
# All that is installed lies in .venv. A stamp there is written when a step has succeeded, and says that it need
# not be done again until the file it was made from changes.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Options for the native build, such as CMAKE_ARGS=-DGGML_CUDA=on; unsaid, those of the last build.
built_with := $(shell cat .venv/.cmake-args 2>/dev/null)
CMAKE_ARGS ?= $(built_with)
CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)
export CMAKE_ARGS CMAKE_BUILD_PARALLEL_LEVEL

.DEFAULT_GOAL := help
.PHONY: help serve test check format bench fuzz lock clean FORCE
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: .venv/.plait ## install what is missing, then run the server: make serve ARGS="MODEL.gguf --port 8080"
	$(BIN)/plait serve $(ARGS)

test: check ## lint, type check and test
	$(BIN)/pytest $(ARGS)

check: .venv/.test ## lint and type check only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.test ## put the sources in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.test ## measure Plait beside other servers, 20 minutes; or one benchmark: make bench ARGS=NAME
	$(BIN)/python -m benchmarks $(or $(ARGS),all)

fuzz: .venv/.test ## put 5,000 made-up requests to a server, and hold its answers against /openapi.json
	FUZZ_EXAMPLES=840 $(BIN)/pytest tests/e2e/test_fuzz.py $(ARGS)

lock: .venv/.uv ## write requirements/*.txt anew from pyproject.toml: make lock [ARGS=--upgrade]
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) pyproject.toml -o requirements/serve.txt
	$(COMPILE) pyproject.toml --group test -c requirements/serve.txt -o requirements/test.txt

clean: ## remove .venv, caches and build outputs
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +

# One lock for all supported Pythons and platforms, that names packages and hashes but not where they come from.
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/uv/bin/uv pip compile --quiet --no-config --universal \
	--python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links $(ARGS)

# An environment that was moved here from elsewhere, or whose Python is gone, is made anew.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat .venv/.made),$(CURDIR))
.venv/.made: FORCE
endif

# Other options than those of the last build: build again, and not from the wheel that pip kept of it.
ifneq ($(CMAKE_ARGS),$(built_with))
.venv/.serve: FORCE
rebuild := yes
endif

# pip takes what an interrupted install left half done for installed: after one, install that step's all again.
interrupted := $(wildcard .venv/.unfinished)

define install
@touch .venv/.unfinished
$(PIP) install --quiet --no-build-isolation $(if $(interrupted)$(rebuild),--force-reinstall) $(1)
@rm .venv/.unfinished
@touch $@
endef

.venv/.made:
	@scripts/check-prerequisites '$(PYTHON)'
	$(PYTHON) -m venv --clear .venv
	@echo '$(CURDIR)' > $@

.venv/.build: requirements/build.txt .venv/.made
	$(call install,--require-hashes -r $<)

.venv/.serve: requirements/serve.txt .venv/.build
	@scripts/check-prerequisites '$(PYTHON)'
	@echo 'Installing. The first time this compiles llama.cpp for this machine: 5 to 15 minutes on 2 cores.'
	$(if $(rebuild),-@$(PIP) cache remove --quiet llama_cpp_python)
	$(call install,--require-hashes -r $<)
	@printf '%s\n' "$$CMAKE_ARGS" > .venv/.cmake-args

.venv/.plait: pyproject.toml .venv/.serve
	$(call install,--no-deps --editable .)

.venv/.test: requirements/test.txt .venv/.plait
	$(call install,--require-hashes -r $<)

.venv/.uv: .venv/.made
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet uv
	@touch $@
