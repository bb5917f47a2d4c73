# The first two are all that a newcomer needs; both set up what they use.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench soak-provisioner chaos-sim fuzz chaos chaos-soak two-machines reference tutorials presets images containers image-bases proto crds dashboards lock clean

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := $(sort $(wildcard libs/* services/*))
REFERENCE := windfall.contracts !windfall.contracts.v1 windfall.energy windfall.lowcomm windfall.tasks windfall.servicekit \
	!windfall.servicekit.testing windfall.energy_watcher windfall.flower_adapter.window
BENCHES := $(patsubst tests/bench/bench_%.py,bench-%,$(wildcard tests/bench/bench_*.py))

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: $(READY) ## three sites train one model while their power comes and goes (ARGS="--fast" for half a minute)
	@$(BIN)/windfall demo $(ARGS)

# A test that fails is tried once more, three in a run at most; what each said first stands at the end.
test: check ## everything that a change must pass
	$(BIN)/pytest -q --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks $(ARGS)

check: $(READY) ## format, lint, types, directions of imports
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/ruff check -q --preview --select DOC102 libs services # a docstring describes no parameter that is not there
	$(BIN)/mypy libs/*/src services/*/src tests deploy/grafana/source deploy/images deploy/compose
	$(BIN)/lint-imports

bench: $(BENCHES) ## every benchmark

bench-%: $(READY) ## one benchmark: prints a table, writes bench-results/<name>.json
	$(BIN)/python -m tests.bench.bench_$* $(ARGS)

chaos-sim: $(READY) ## 10,000 schedules of faults on a fleet in one process (SCHEDULES=N, FIRST=S, RESUME=1; SEED=S tells one again)
	$(BIN)/python -m tests.chaos_sim $(ARGS)

fuzz: $(READY) ## 100,000 bad inputs for every parser that reads the network or a file (INPUTS=N, SEED=S)
	$(BIN)/python -m tests.fuzz $(ARGS)

chaos: $(READY) ## a fleet of real processes is hurt in every way, 20 times each (RUNS=N; ARGS="--fault NAME --seed S", --list)
	$(BIN)/python -m tests.chaos_real $(ARGS)

chaos-soak: $(READY) ## half an hour at a hundred times the clock, with anything killed at any time (SOAK_MINUTES=N)
	$(BIN)/python -m tests.chaos_real --fault soak --runs 1 $(ARGS)

two-machines: $(READY) ## a hub and a site, in a network of its own if root runs it: enrolment, rounds, a cut link, revocation
	$(BIN)/pytest -q tests/two_machines.py $(ARGS)

soak-provisioner: $(READY) ## 200 windows at 50 sites, with everybody killed at random (ARGS="--backend all" mixes the backends)
	$(BIN)/python -m tests.soak_provisioner $(ARGS)

tutorials: $(READY) ## every tutorial, line by line, with those that train for real
	WINDFALL_TUTORIALS=all $(BIN)/pytest -q tests/documents/test_tutorials.py $(ARGS)

presets: $(READY) ## small presets trained to what they promise (the tests see that they learn)
	WINDFALL_PRESETS=whole $(BIN)/pytest -q libs/tasks -k "unseen_takes or 97_percent" $(ARGS)

reference: $(READY) ## the API's reference in build/reference, from its docstrings; a warning is an error
	$(BIN)/python -W error -m pdoc --docformat google --output-directory build/reference $(REFERENCE)

images: $(READY) ## all container images, with docker, podman or buildah (docs/images.md says what can be chosen)
	@$(BIN)/python -m deploy.images --torch "$(TORCH)" $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(BASE),--base $(BASE)) \
		$(if $(TORCH_BASE),--torch-base $(TORCH_BASE)) $(if $(SLIM_BASE),--slim-base $(SLIM_BASE)) $(ARGS)

containers: $(READY) ## the images, and the compose file's hub and a site, run for real with podman (after `make images`)
	WINDFALL_CONTAINERS=all $(BIN)/pytest -q tests/test_containers.py $(ARGS)

image-bases: ## the bases of the images, from Debian's packages, for where no registry is at hand
	deploy/images/base.sh build/bases

proto: $(READY) ## generate the gRPC stubs anew
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=libs/contracts/src --pyi_out=libs/contracts/src \
		--grpc_python_out=libs/contracts/src --mypy_grpc_out=quiet:libs/contracts/src \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc proto/windfall/contracts/v1/*.proto

crds: $(READY) ## write deploy/crds anew from windfall.contracts.resources
	@$(BIN)/python -m windfall.provisioner.definitions deploy/crds

dashboards: $(READY) ## write Grafana's dashboards anew
	$(BIN)/python -m deploy.grafana.source

lock: $(READY) ## pin the third-party tree anew from requirements.in
	$(BIN)/python -m pip install -q uv && $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate requirements.in -o requirements.lock

setup: $(READY) ## the virtual environment with everything pinned

$(READY): requirements.lock $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Windfall needs Python 3.11 or newer; this is $$($(PYTHON) -V). Set PYTHON to one."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Cannot make a virtual environment. On Debian and Ubuntu, install python3-venv."; exit 2; }
	@echo "Installing pinned dependencies into $(VENV) (two minutes the first time) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$(TORCH)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps $(PACKAGES:%=-e %)
	@touch $@

clean: ## everything that was generated
	rm -rf $(VENV) runs bench-results .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
