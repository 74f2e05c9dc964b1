# One command per chore. `make demo` and `make test` set up .venv themselves.
PYTHON ?= python3
PEER_PYTHON ?= python3.11
VENV   ?= .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: help demo test test-all lint types docs docs-check golden peers bench bench-bars bench-public bench-layers bench-kernels bench-instructions fuzz wheel clean setup

help:               ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY)     ## the environment alone

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	$(PY) -m pip install -q -e '.[compiler,dev]'
	@touch $@

demo: $(READY)      ## a real model: built, verified and timed against onnxruntime
	$(PY) examples/demo.py

test: $(READY)      ## what CI runs
	$(PY) -m pytest -q -n 2 --dist loadgroup -m "not slow"

test-all: $(READY)  ## with the long sweeps
	$(PY) -m pytest -q -n 2 --dist loadgroup

lint: $(READY)      ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(READY)     ## checks the package as it is installed, from outside of the tree
	rm -rf $(VENV)/typed
	$(PY) -m pip install -q --no-deps --no-build-isolation --target $(VENV)/typed .
	cd $(VENV) && MYPYPATH=typed $(abspath $(PY)) -m mypy --config-file $(CURDIR)/pyproject.toml

docs: $(READY)      ## writes the generated tables
	$(PY) docs/generate.py
	$(PY) benchmarks/tables.py

docs-check: $(READY)   ## that the generated tables are what they would be
	$(PY) docs/generate.py --check
	$(PY) benchmarks/tables.py --check

golden: $(READY)    ## rewrites the golden files
	$(PY) -m pytest -q -n 2 --dist loadgroup tests/golden tests/docs tests/onnx_suite --update-golden

# DeepSparse (evaluation only, Python 3.8 to 3.11) gets an environment of its own: it wants an old numpy.
peers: $(READY)     ## what `bench` compares with, beside onnxruntime
	$(PY) -m pip install -q openvino
	$(PEER_PYTHON) -m venv $(VENV)/deepsparse
	$(VENV)/deepsparse/bin/python -m pip install -q deepsparse==1.8.0

bench: $(READY)     ## BERT-base and ResNet-50, dense, pruned, int8, against every installed peer; BENCH="mlp --batch 64" …
	$(PY) benchmarks/bench.py $(BENCH)

bench-bars: $(READY)   ## every speed that is aimed at, met or missed; BENCH="resnet50:*" selects
	$(PY) benchmarks/bars.py $(BENCH)

bench-public: $(READY)   ## the public models against onnxruntime and OpenVINO
	$(PY) benchmarks/models.py

bench-accuracy: $(READY)   ## what sparsify keeps of the accuracy of four tasks
	$(PY) -m pip install -q -e '.[accuracy]'
	$(PY) benchmarks/accuracy/measure.py

bench-layers: $(READY) ## each product with its chosen kernel and with the dense one; BENCH="mlp --variant int8_1x4_80"
	$(PY) benchmarks/layers.py $(BENCH)

fuzz: $(READY)      ## mutated ONNX files; FUZZ="--count 10000", goes on where it stopped
	$(PY) tests/fuzz/run.py $(FUZZ)

bench-kernels: $(READY)   ## every kernel against the machine's peak
	$(PY) benchmarks/kernels.py

bench-instructions: $(READY)     ## of AArch64 kernels, counted by qemu-aarch64 (Debian: qemu-user)
	$(PY) benchmarks/instructions.py

wheel: $(READY)     ## into dist/
	$(PY) -m build --wheel

clean:              ## what builds and tests leave
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
