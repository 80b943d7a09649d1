# Everything runs from .venv/, which `make install` builds from requirements.lock. No root, no container engine, but for
# what begins with `compose` or `images`.
# A target's line with `##` is its help; `make help` prints them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV ?= uv
ARGS ?=

# The first interpreter that is new enough and can make an environment (Debian keeps ensurepip in a package apart).
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench bench-guard bench-peers images compose-up compose-demo compose-down lock audit sbom secrets fuzz mutate clean

help: ## print this list
	@echo "make TARGET [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## build .venv/ from the hash-locked requirements; instant when nothing changed

demo: $(STAMP) ## both clouds on this machine, real jobs, the evidence; ARGS='PATH...' for folders of yours
	@$(BIN)/bunny demo $(ARGS)

test: lint ## everything that must hold: lint, then all tests, one at a time per processor; ARGS='-k envelope' narrows the tests
	$(BIN)/pytest --numprocesses=logical --dist=loadfile --no-loadscope-reorder --durations=10 $(ARGS)

lint: $(STAMP) ## ruff (rules and format), mypy strict, the layers of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## jobs per second, beside plain nats-py over the same hub and leaf
	$(BIN)/python -m bench $(ARGS)

bench-peers: $(STAMP) ## the same beside Celery, Dramatiq, arq, taskiq and FastStream (needs redis-server; installs them in .cache/)
	$(BIN)/python -m bench.peers $(ARGS)

bench-guard: $(STAMP) ## calls of functions and signatures for each job, held to a limit: seconds, on any machine
	@$(BIN)/python -m bench.guard

# The engine's own Compose if it has one, else the locked one. The variables are what prepare.py wrote.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo $(BIN)/docker-compose)
COMPOSE_ENV := .compose/env

images: $(STAMP) ## the container images, from official ones or from nothing (docs/compose.md)
	@VENV=$(VENV) deploy/images/build $(ARGS)

compose-up: images ## two isolated clouds in containers: keys in .compose/, then compose.yaml
	@$(BIN)/python deploy/compose/prepare.py
	@$(COMPOSE) --env-file $(COMPOSE_ENV) up --detach --wait

compose-demo: images ## the same, jobs for the files of a folder, and attempts to cross; BUNNY_DEMO_FILES=FOLDER
	@$(BIN)/python deploy/compose/prepare.py
	@COMPOSE='$(COMPOSE) --env-file $(COMPOSE_ENV)' deploy/compose/demo

compose-down: ## remove its containers and networks; ARGS=--volumes its stored jobs too
	@$(COMPOSE) --env-file $(COMPOSE_ENV) --profile '*' down $(ARGS)

.PHONY: natscli
natscli: $(STAMP) ## the stock nats CLI that tests/acceptance uses, built in .cache/ (needs Go 1.21 or later)
	@$(BIN)/python -m tests.nats_cli

lock: ## rewrite requirements.lock from pyproject.toml (needs uv); ARGS=--upgrade moves every version
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: install it (for example 'pipx install uv') or name it, UV=/path/to/uv" >&2; exit 1; }
	$(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra embedded --extra metrics --extra tracing --extra dev \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-config --custom-compile-command 'make lock' \
		--output-file requirements.lock $(ARGS)
	@# What the services' image has of it: no tools, no tests, and Linux alone.
	$(UV) pip compile pyproject.toml --quiet --python-platform linux --python-version 3.11 --extra metrics --extra tracing \
		--constraint requirements.lock --no-annotate \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-config --custom-compile-command 'make lock' \
		--output-file deploy/images/requirements.lock $(ARGS)

fuzz: $(STAMP) ## feed what reads bytes from outside with bytes that no test thought of (needs atheris); ARGS='--minutes 30'
	@$(BIN)/python -m tests.fuzz $(ARGS)

mutate: $(STAMP) ## break the verifying code in every small way, and see that a test fails; ARGS='--module bridge/trust.py'
	@$(BIN)/python -m tests.mutate $(ARGS)

audit: $(STAMP) ## known vulnerabilities of locked versions, by pip-audit if it is installed; else it says that it did not check
	@$(BIN)/python deploy/supply/audit.py

sbom: $(STAMP) ## what the services' image installs, as CycloneDX JSON
	@$(BIN)/python deploy/supply/sbom.py

secrets: $(STAMP) ## look for private keys in all of git's history
	@$(BIN)/python deploy/supply/history.py

clean: ## remove the environment and every cache (never .bunny/ and .compose/: they hold keys)
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later with the venv module was found (Debian: apt install python3-venv); or name one, make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV)/ from requirements.lock"
	@# nkeys comes as source only, and so do we: setuptools goes first, locked like the rest, so that no build fetches its own.
	@sed -n '/^setuptools==/,/^    #/p' requirements.lock > $(VENV)/setuptools.lock
	@$(PIP) --require-hashes --only-binary :all: -r $(VENV)/setuptools.lock
	@$(PIP) --require-hashes --only-binary :all: --no-binary nkeys --no-build-isolation --use-pep517 -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $(STAMP)
