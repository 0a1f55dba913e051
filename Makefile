# make train [CONFIG=configs/quickstart.py]   train; sets up .venv first
# make test                                   the default tests; sets up .venv first
# make lint                                   ruff

CONFIG ?= configs/quickstart.py
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info < (3, 11) or print("$(p)")' 2>/dev/null)) none)
# the newest version of CUDA that the NVIDIA driver supports: 12 or 13 (newer ones run 13's programs)
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: 12.*/12/p; s/.*CUDA Version: 1[3-9].*/13/p')
COMMA := ,
EXTRAS := test$(CUDA:%=$(COMMA)cuda%)

.PHONY: train test lint

train: .venv/ready
	.venv/bin/python -m jaxcifar.main --config=$(CONFIG) $(ARGS)

test: .venv/ready
	.venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml constraints.txt
	@[ "$(PYTHON)" != none ] || { echo "error: no Python 3.11 or newer found; set it with: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Setting up .venv with $(PYTHON) (extras: $(EXTRAS)); this takes a minute or two."
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
