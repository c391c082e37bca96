# make env | hashes | demo | test | faults | fuzz | lint | bench | results | docs | matrix | floors | clean        (PYTHON=python3.11 chooses the interpreter)
PYTHON ?= python3
VENV ?= .venv
# A machine without a GPU wants torch's CPU build; say where your pip finds one: make env TORCH='torch==2.13.0 --index-url …'
TORCH ?= torch==2.13.0
ESPNET ?= espnet==202511 torchaudio==2.11.0
# for the tests of encoder: whisper; with its dependencies it would pull in another torch's triton
WHISPER ?= openai-whisper==20250625
# ESPnet's line for Python 3.12, for the tests: not installed, but unpacked in a folder that they put in front of sys.path
LATER ?= espnet==202611 omniio==0.1.2 espnet_model_zoo==0.1.7 pandas==3.1.1
# then nothing but these files is installed, to the bit, where they are those of your platform: make env HASHES=hashes.txt
HASHES ?=
# installed last, without their dependencies
LAST := '^(espnet|torchaudio|openai-whisper)=='
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --progress-bar off -q
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help env hashes demo test faults fuzz lint bench results docs matrix floors clean
help:
	@sed -n 's/^# make/make/p; s/^## //p' Makefile

## env    .venv with pinned dependencies and ESPnet 
env: $(VENV)/.done
$(VENV)/.done: requirements.txt constraints.txt setup.cfg
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and f"make env: {sys.executable} is Python {v[0]}.{v[1]}, but espnet 202511 needs 3.11: make env PYTHON=python3.11")'
	@echo "env 1/4: $(VENV) (all of it: about five minutes)" && $(PYTHON) -m venv $(VENV)
	@echo "env 2/4: $(TORCH)" && $(if $(HASHES),echo "  among $(HASHES)",$(PIP) $(TORCH))
	@$(if $(HASHES),grep -Ev $(LAST) $(HASHES) > $(VENV)/first.txt; grep -E $(LAST) $(HASHES) > $(VENV)/last.txt)
	@echo "env 3/4: requirements.txt" && $(PIP) $(if $(HASHES),--require-hashes -r $(VENV)/first.txt,-r requirements.txt -c constraints.txt)
	@echo "env 4/4: $(ESPNET)" && $(PIP) --no-deps --no-build-isolation $(if $(HASHES),--require-hashes -r $(VENV)/last.txt,$(ESPNET) $(WHISPER))
	@$(PIP) --no-deps --no-build-isolation -e .
	@# torchaudio's PyPI build is linked with CUDA; without its libraries the pure-Python parts, all that ASR needs, work
	@$(PY) -c 'import torchaudio' 2>/dev/null || rm -f $(VENV)/lib/python3*/site-packages/torchaudio/lib/*.so
	@$(PY) -c 'import torchaudio, espnet2, espnet_gmot' && touch $@ && echo "env: ready, . $(VENV)/bin/activate"

## hashes hashes.txt anew: the SHA-256 of every file that your pip would install, for this machine's kind and your package index
hashes: env
	@$(PIP) --dry-run --ignore-installed --report $(VENV)/first.json -r requirements.txt -c constraints.txt
	@$(PIP) --dry-run --ignore-installed --report $(VENV)/last.json --no-deps --no-build-isolation $(ESPNET) $(WHISPER)
	@{ echo "# $$($(PY) -c 'import platform as p; print(p.system(), p.machine(), p.python_implementation(), p.python_version())'), $(TORCH): make hashes"; \
	   $(PY) -c 'import json, sys; print(*sorted("%s==%s --hash=sha256:%s" % (p["metadata"]["name"].lower(), p["metadata"]["version"], p["download_info"]["archive_info"]["hashes"]["sha256"]) for f in sys.argv[1:] for p in json.load(open(f))["install"]), sep="\n")' $(VENV)/first.json $(VENV)/last.json; } > hashes.txt
	@echo "hashes: hashes.txt, $$(grep -c sha256 hashes.txt) files"

## demo   synthetic corpus, teacher, CTC baseline and GM-OT, CER table
demo: env
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" egs2/aishell_gmot/asr1/run_demo.sh --workdir "$(CURDIR)/demo"

## test   lint and tests
test: lint $(VENV)/espnet_later
	$(PY) -m pytest -n auto --maxprocesses 8 --dist worksteal tests

## faults kills in every stage, full disks, long runs: minutes (as root also a full disk of its own)
faults: env
	$(PY) -m pytest -m faults tests

## fuzz   100,000 hard problems for the solver, and 2,000 spoilt files for every parser; GMOT_FUZZ=N, GMOT_FUZZ_EXAMPLES=N
fuzz: env
	GMOT_FUZZ=$(or $(GMOT_FUZZ),100000) $(PY) -m pytest tests/transport/test_fgw_fuzz.py
	GMOT_FUZZ_EXAMPLES=$(or $(GMOT_FUZZ_EXAMPLES),2000) $(PY) -m pytest tests/fuzz

$(VENV)/espnet_later: $(VENV)/.done
	@rm -rf $@ && echo "test: $@: $(LATER)"
	@$(PIP) --no-deps --ignore-requires-python --only-binary=:all: --target $@ $(LATER) || echo "test: without them, the later ESPnet's tests skip"

## lint   ruff, mypy and shellcheck
lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/shellcheck $$(git ls-files '*.sh' .ci/run)

## bench  every benchmark, into docs/
bench: env
	$(PY) benchmarks/transport_speed.py
	$(PY) benchmarks/transport_scaling.py
	OMP_NUM_THREADS=2 $(PY) benchmarks/training_step.py --out docs/training_step.json
	$(PY) benchmarks/plugin_cost.py --out docs/plugin_cost.json
	$(PY) benchmarks/load.py --out docs/load.json
	@if $(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(PY) benchmarks/gpu.py --out docs/gpu.json; \
	else echo "bench: no GPU here, benchmarks/gpu.py left out"; fi

## results tables and pictures of docs/results.md and the README out of docs/results/*.csv
results: env
	$(PY) docs/results/draw.py

## docs   the documentation as a site, into site/, with warnings as errors
docs: env
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

## matrix every set-up of docs/espnet_lines.md that has no result yet, one environment each; hours (ROW='--row NAME' for one)
matrix:
	$(PYTHON) -m tests.matrix $(ROW)

## floors the lower bounds that setup.cfg declares, in an environment of their own
floors:
	$(PYTHON) -m tests.matrix --floors

## clean  remove the environment and what the demo made
clean:
	rm -rf $(VENV) .matrix site demo mini build *.egg-info
