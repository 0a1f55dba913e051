# make train [CONFIG=configs/quickstart.py]   train; sets up .venv first
# make test                                   the default tests; sets up .venv first
# make lint                                   ruff

CONFIG ?= configs/quickstart.py
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info < (3, 11) or print("$(p)")' 2>/dev/null)) none)
# with an NVIDIA GPU, the wheels of the CUDA version that its driver supports
CUDA := $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && \
	{ nvidia-smi | grep -q 'CUDA Version: *1[3-9]' && echo 13 || echo 12; })
COMMA := ,
EXTRAS := test$(CUDA:%=$(COMMA)cuda%)

.PHONY: train test lint

train: .venv/ready
	.venv/bin/python -m jaxcifar.main --config=$(CONFIG) $(ARGS)

test: .venv/ready
	.venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: pyproject.toml constraints.txt
	@[ "$(PYTHON)" != none ] || { echo "error: no Python 3.11 or newer found; set it with: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Setting up .venv with $(PYTHON) (extras: $(EXTRAS)); this takes a minute or two."
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
