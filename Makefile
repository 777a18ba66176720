# The two commands to begin with: make demo, make test. Everything they need is fetched once into a cache outside the repo.
PYTHON ?= python3
HOST := $(PYTHON) lab/host.py run --

.PHONY: help demo test check test-hosts test-beside bench fuzz evidence lab ship clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/'

demo: ## a real ComfyUI runs the shipped graphs with and without guidance
	@$(HOST) lab/run.py demo

# Two processes with one thread each: the models here are too small for a second thread to help. Files in the order of
# their names: the long ones begin early, and the unit tests, many and short, let both processes end together.
WORKERS ?= 2

test: check ## all tests, against the pinned ComfyUI
	@OMP_NUM_THREADS=1 $(HOST) -P -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15

check: ## ruff and mypy
	@$(HOST) -m ruff check .
	@$(HOST) -m ruff format --check .
	@$(HOST) -m mypy

test-hosts: ## the host tests on five releases of ComfyUI
	@$(HOST) lab/run.py test_hosts

test-beside: ## the nodes of other packs beside ours, in both orders: make test-beside PACKS=folder
	@$(HOST) lab/run.py beside $(PACKS)

evidence: ## what guidance does, on the models of make lab: docs/evidence.md and its plots; RAY=address: on a Ray cluster
	@$(HOST) lab/run.py evidence $(if $(RAY),--ray $(RAY))

bench: ## what a step costs, beside the plain model: docs/cost.md, docs/cost_families.md
	@$(HOST) lab/run.py bench
	@$(HOST) lab/run.py family_cost

fuzz: ## what strangers may send: 100,000 block specs, 20,000 requests, 1000 prompts; docs/reliability.md
	@$(HOST) lab/run.py fuzz

MODELS ?= 0 1 2 3 4 0s 3s 4s

lab: ship ## train all small models anew: the shipped ones and those of the evidence (about three hours on 2 cores)
	@$(HOST) lab/run.py models $(MODELS)

ship: ## train the shipped models alone anew, and write lab/trained (about 45 minutes on 2 cores)
	@$(HOST) lab/run.py lab

clean: ## remove what was made here; the cache stays
	rm -rf demo_output .pytest_cache .ruff_cache .mypy_cache .hypothesis
