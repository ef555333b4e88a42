PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)/src

.PHONY: demo repro test check lint report bench lock clean

demo: repro ## teach the embedded model to reason and show the report
	@python scripts/index.py
	@for page in runs/*/report.html; do echo "The report: file://$(CURDIR)/$$page"; done

repro: check ## run what params.yaml asks for; only what changed runs again
	@dvc repro || { dvc checkout --quiet; exit 1; }

check: .venv/.ready ## validate params, recipes and sources, one sentence a problem
	@python scripts/validate.py

test: .venv/.ready ## run the tests
	python -m pytest

lint: .venv/.ready ## ruff and mypy
	ruff check . && ruff format --check . && mypy

report: .venv/.ready ## an index page over all runs and comparisons present
	@python scripts/index.py

bench: .venv/.ready ## benchmarks against named peers
	python bench/rewards.py && python bench/grpo_step.py && python bench/prompts.py

lock: ## resolve locks/direct.in anew (needs uv)
	python3 locks/lock.py

clean: ## remove scratch and outputs; DVC's cache stays
	rm -rf .cache runs published comparisons reports data models

LOCKS := locks/torch-cpu.txt locks/torch.txt locks/cpu.txt

# Rebuilt when a lock's content differs from the one that it was built from, whatever the files' times say.
.venv/.ready: $(LOCKS)
	@cat $(LOCKS) | cmp -s - $@ && touch $@ || $(MAKE) --no-print-directory environment

.PHONY: environment
environment:
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed; name one with make PYTHON=...' if sys.version_info < (3, 11) else 0)"
	@echo "Installing the locked environment into .venv (1.8 GB, about two minutes)."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --require-hashes --no-cache-dir -r locks/torch-cpu.txt 2>/dev/null \
	  || (echo "pip knows no place with torch's CPU build: taking the index's (several GB on Linux; see the README)." \
	      && $(PIP) --require-hashes -r locks/torch.txt)
	@$(PIP) --require-hashes -r locks/cpu.txt
	@cat $(LOCKS) > .venv/.ready
