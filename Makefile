# Everything a developer or an operator runs. Each target makes .venv itself; nothing but python3 (3.11+) and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install install-reference demo up test test-packs test-sdks test-servers test-unit test-parity test-images lint audit format bench release lambda-zip docs clean

help: ## Show this list
	@echo "facerec: elastic face recognition on AWS. Start with 'make demo'."
	@echo
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 22

$(BIN)/python:
	@echo "==> Making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "facerec needs Python 3.11 or newer; name one with 'make PYTHON=python3.12 …'" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: setup.cfg constraints.txt | $(BIN)/python
	@echo "==> Installing facerec (web, worker, local AWS, tests; no torch)"
	@started=$$(date +%s); $(PIP) install --quiet --quiet --editable '.[web,worker,autoscale,flower,build,local,test]' --constraint constraints.txt \
	  && echo "==> Installed in $$(( $$(date +%s) - started )) s"
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "==> Installing the linters and Playwright"
	$(PIP) install --quiet --quiet --editable '.[dev,browser]' --constraint constraints.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.dev
	@echo "==> Installing the linters of docker/ and deploy"
	$(PIP) install --quiet --quiet --editable '.[lint]' --constraint constraints.txt
	@touch $@

$(VENV)/.reference: $(VENV)/.runtime
	@echo "==> Installing torch and facenet-pytorch (several GB; only the reference engine and the yardsticks need them)"
	$(PIP) install --quiet --quiet --editable '.[export]' --constraint constraints.txt
	@touch $@

install: $(VENV)/.runtime ## Install into .venv and build the model (no torch)
	@echo "==> Building the model, unless it is there"
	@$(BIN)/facerec model build
	@echo "==> Ready. Try 'make demo', 'make up', or '$(BIN)/facerec --help'."

install-reference: install $(VENV)/.reference ## Add torch and facenet-pytorch, for parity tests and yardsticks

demo: install ## Start everything on an emulated AWS, enrol the samples, recognise the probes
	@$(BIN)/facerec local demo $(ARGS)

up: install ## Leave the system running and print its addresses; Ctrl-C stops it
	@exec $(BIN)/facerec local up $(ARGS)

# The packs are built here, since their downloads (117 MB) may take longer than a test may.
# So is the emulator of Lambda's runtime (8 MB).
test-packs: $(VENV)/.runtime
	@FACEREC_MODEL__DIR=.cache/model $(BIN)/facerec model build
	@FACEREC_MODEL__DIR=.cache/packs/classic $(BIN)/facerec model build --pack classic
	@FACEREC_MODEL__DIR=.cache/packs/accurate FACEREC_MODEL__LICENCE=research $(BIN)/facerec model build --pack accurate
	@$(BIN)/python -m facerec.local.functions.runtime_emulator >/dev/null

# CompreFace's official client, in an environment of its own: it needs an old urllib3.
COMPREFACE_SDK := .cache/compreface-sdk
test-sdks: | $(BIN)/python
	@$(COMPREFACE_SDK)/bin/python -c 'import compreface' 2>/dev/null || { \
	  echo "==> Installing CompreFace's SDK"; $(BIN)/python -m venv $(COMPREFACE_SDK) && $(COMPREFACE_SDK)/bin/python -m pip --disable-pip-version-check \
	    install --quiet compreface-sdk==0.6.0 requests==2.34.2 requests-toolbelt==0.9.1 urllib3==1.26.20; } \
	  || echo "CompreFace's SDK cannot be installed here, so its tests are skipped" >&2

# Most slow tests wait for other processes, so four keep two cores busy. Each runs whole files, on an emulator of its own.
# They start hundreds of commands of this tree, each of which would compile it again.
unexport PYTHONDONTWRITEBYTECODE
TEST_PROCESSES ?= 4
PARALLEL := --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15

# Tests run the shipped configuration of nginx (deploy/nginx), the edge against an MQTT broker, and the page in Chromium.
test-servers:
	@PATH="$$PATH:/usr/sbin"; for program in nginx mosquitto chromium; do \
	  command -v $$program >/dev/null && continue; \
	  package=$$program; [ $$program != nginx ] || package=nginx-light; [ $$program != chromium ] || package="chromium fonts-dejavu-core"; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	  echo "==> Installing $$package"; \
	  { $$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $$package >/dev/null; } \
	  || echo "$$package cannot be installed here, so its tests are skipped" >&2; done

test: $(VENV)/.dev test-packs test-sdks test-servers ## Run all tests but parity
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-unit: $(VENV)/.runtime ## Run the unit tests alone
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit $(ARGS)

test-parity: install-reference test-packs ## Compare the engines with facenet-pytorch as published, and run what else needs torch
	@$(BIN)/python -m pytest tests/parity tests/integration/test_gallery_cli.py::test_saved_pair_is_imported $(ARGS)

# The images are built and run without a Docker daemon. What apt installs stays; all else is in .cache/images.
test-images: $(VENV)/.dev test-servers ## Build every image on a stand-in base, run them, recognise photos in them (as root, on Debian)
	@dpkg -s buildah runc debootstrap >/dev/null 2>&1 || { \
	  echo "==> Installing buildah, runc and debootstrap"; \
	  apt-get -qq update && env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends buildah runc debootstrap >/dev/null; }
	@$(BIN)/python -m pytest tests/images $(ARGS)

lint: $(VENV)/.lint ## Check format, lint, types, layers, security, images, templates and the generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive facerec tasks autoscale model
	@$(BIN)/facerec config --format markdown | diff -u docs/configuration.md - \
	  || { echo "docs/configuration.md is out of date; run 'make docs'" >&2; exit 1; }
	@$(BIN)/facerec openapi | diff -u docs/openapi.json - \
	  || { echo "docs/openapi.json is out of date; run 'make docs'" >&2; exit 1; }
	@for stack in functions repository; do $(BIN)/facerec serverless template $$stack | diff -u deploy/serverless/$$stack.json - \
	  || { echo "deploy/serverless is out of date; run 'make docs'" >&2; exit 1; }; done
	@$(BIN)/facerec edge rules template | diff -u deploy/edge/rules.json - \
	  || { echo "deploy/edge is out of date; run 'make docs'" >&2; exit 1; }
	@$(BIN)/facerec edge recipe | diff -u deploy/edge/recipe.json - \
	  || { echo "deploy/edge is out of date; run 'make docs'" >&2; exit 1; }
	$(BIN)/cfn-lint deploy/serverless/*.json deploy/edge/rules.json
	$(BIN)/hadolint --failure-threshold style docker/Dockerfile

$(VENV)/audit: | $(BIN)/python
	@$(BIN)/python -m venv $@ && $@/bin/python -m pip --disable-pip-version-check install --quiet pip-audit

audit: $(VENV)/audit ## Look the tested versions up in PyPI's database of vulnerabilities (needs pypi.org)
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

format: $(VENV)/.dev ## Format the tree
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The hashes are those of this system and version of Python. They are in the wheel, so that the wheel's hash covers them.
REQUIREMENTS := facerec/provision/requirements.txt
release: $(VENV)/.runtime ## Build the wheel for EC2 instances into dist, with the hashes of all that they install
	@rm -rf build dist && mkdir -p build/needs
	@$(PIP) download --quiet --only-binary :all: --dest build/needs --constraint constraints.txt '.[worker]'
	@sha256sum build/needs/*.whl | sed -E '/\/facerec-/d; s|^([0-9a-f]+) .*/([^-]+)-([^-]+)-.*|\2==\3 --hash=sha256:\1|' > $(REQUIREMENTS)
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist . ; status=$$?; rm $(REQUIREMENTS); exit $$status
	@echo "for instances with $$($(BIN)/python -V) and $$(uname -m):" >&2
	@for wheel in dist/*.whl; do echo "$${wheel##*/}#sha256=$$(sha256sum "$$wheel" | cut -d ' ' -f 1)"; done

# The functions as a zip archive for the runtime python3.12 (docs/serverless.md): with a python3.12 and a C compiler on this machine.
LAMBDA_ARCH ?= x86_64
lambda-zip: install ## Build the functions as a zip archive into dist (LAMBDA_ARCH=arm64 CC=aarch64-linux-gnu-gcc for arm64)
	@$(BIN)/python -m deploy.lambda_zip.build --architecture $(LAMBDA_ARCH) $(ARGS)

docs: $(VENV)/.runtime ## Regenerate docs/configuration.md, docs/openapi.json, deploy/iam, deploy/serverless and deploy/edge
	$(BIN)/facerec config --format markdown > docs/configuration.md
	$(BIN)/facerec openapi > docs/openapi.json
	$(BIN)/facerec policies --account 123456789012 --write deploy/iam
	$(BIN)/facerec serverless template --write deploy/serverless
	$(BIN)/facerec edge rules template --write deploy/edge
	$(BIN)/facerec edge recipe --write deploy/edge/recipe.json

bench: install ## Measure a round trip through the whole system
	@$(BIN)/python -m benchmarks.roundtrip $(ARGS)

clean: ## Remove .venv, caches and local state (the model and its download are in ~/.cache/facerec)
	rm -rf $(VENV) .cache .local build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
