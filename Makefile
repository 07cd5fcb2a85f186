# `make` alone lists what there is. Everything downloads and builds into $FINETUNE_CACHE (default ~/.cache/finetune-operator),
# never into the checkout.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PYTHONPATH := crds:operator:trainer-image:hack
export FINETUNE_CACHE ?= $(HOME)/.cache/finetune-operator
DEV := $(FINETUNE_CACHE)/venv/dev/bin
TRAINER := $(FINETUNE_CACHE)/venv/trainer/bin
ROOT := $(shell [ "$$(id -u)" = 0 ] && echo yes)
# pytest with the time of the slowest tests, so that a slow one is seen.
PYTEST := -m pytest -q --durations=5
# Those that take minutes, which would else be the last, each alone.
LONG := $(addprefix tests/training/test_,export.py served.py readme.py)
TRAINING := $(LONG) $(filter-out $(LONG),$(wildcard tests/training/test_*.py))
# As many at a time as there are CPUs; the tests of a file, which share what is slow to make, go together.
PARALLEL := --numprocesses $(shell n=$$(nproc); echo $$((n < 4 ? n : 4))) --dist loadfile

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run the main job end to end on a real Kubernetes on this machine (needs root)
	@hack/prerequisites demo
	@hack/venv demo >/dev/null
	@$(FINETUNE_CACHE)/venv/demo/bin/python hack/demo.py

.PHONY: down
down: ## Stop the local cluster and remove every trace of it but the caches
	@hack/cluster down

.PHONY: test
test: prerequisites programs test-unit test-integration test-trainer test-e2e ## Run every test (e2e only as root)

# Before the unit tests, too: those of the S3 store are skipped where there is no S3 server yet.
.PHONY: programs
programs: prerequisites
	hack/cluster build --only $(if $(ROOT),all,control-plane)

.PHONY: test-unit
test-unit: prerequisites venvs ## Run the fast tests, without network or cluster
	@hack/venv mlflow >/dev/null
	$(DEV)/python $(PYTEST) $(PARALLEL) --dist worksteal tests/unit/api tests/unit/operator tests/unit/faults tests/unit/support
	$(TRAINER)/python $(PYTEST) $(PARALLEL) tests/unit/trainer

.PHONY: test-integration
test-integration: programs venvs ## Run the operator against a real API server, and the report in a browser
	# More than there are CPUs: they wait for the API server and for time, most of the time.
	$(DEV)/python $(PYTEST) --numprocesses 6 --dist loadfile tests/unit/chart tests/integration
	$(DEV)/python $(PYTEST) tests/browser

.PHONY: test-trainer
test-trainer: programs venvs ## Train and export a real small model, and refuse bad inputs
	# The long files first, and the many short tests where a CPU is left.
	$(TRAINER)/python $(PYTEST) $(PARALLEL) --no-loadscope-reorder $(TRAINING) tests/bad_inputs

.PHONY: test-e2e
test-e2e: programs venvs ## Run whole jobs in real pods (root only)
ifeq ($(ROOT),yes)
	$(TRAINER)/python $(PYTEST) --timeout 1800 tests/cluster
	# The images first, so that no test's time limit has to cover building gigabytes.
	hack/base-image
	hack/build-image operator
	hack/build-image trainer
	# All files at the same time, in one cluster: they wait for pods, most of the time.
	$(TRAINER)/python $(PYTEST) --timeout 1800 --numprocesses 6 --dist loadfile tests/e2e
else
	@echo "e2e tests skipped: kubelet and containerd need root"
endif

.PHONY: faults
faults: programs venvs ## Inject N random faults (default 200, about 15 minutes) and judge; SEED=... repeats a run
	$(DEV)/python -m tests.faults --faults $(or $(N),200) $(if $(SEED),--seed $(SEED))

.PHONY: test-interop
test-interop: programs venvs ## Run results in real third parties, which are built first (Ollama: 12 minutes, once)
	hack/interop

# Of each kind; the figures in benchmarks/README.md are of 300.
JOBS ?= 300

.PHONY: bench-control-plane
bench-control-plane: prerequisites venvs ## Measure what the operator costs beside plain Jobs, with simulated nodes
	hack/cluster build --only control-plane
	hack/cluster build --only bench
	$(DEV)/python -m benchmarks.control_plane --jobs $(JOBS)

.PHONY: lint
lint: venvs ## Check style, types and layers
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy crds/finetune_api operator/finetune_operator trainer-image/finetune_trainer hack
	$(DEV)/lint-imports

.PHONY: format
format: venvs ## Rewrite the sources in the project's style
	$(DEV)/ruff check --fix-only .
	$(DEV)/ruff format .

.PHONY: generate
generate: venvs ## Write what is generated from the code: the CRD, the chart's copy, the references
	$(DEV)/python hack/generate.py

.PHONY: verify
verify: generate ## Fail if a generated file is not up to date
	git diff --exit-code -- crds charts docs

.PHONY: lock
lock: venvs ## Resolve every requirements/*.lock again from pyproject.toml
	hack/lock

.PHONY: prerequisites
prerequisites:
	@hack/prerequisites $(if $(ROOT),all,tests)

.PHONY: venvs
venvs:
	@hack/venv dev >/dev/null
	@hack/venv trainer >/dev/null
