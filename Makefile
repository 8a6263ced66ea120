# Two commands do everything: `make demo` and `make test`. Both install what they need into .venv, once.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO_CONFIG := configs/dfine/dfine_dinov3_demo.yml
DEMO := output/dfine_dinov3_demo

.PHONY: demo test lint install clean

demo: $(VENV)/export.installed
	@mkdir -p $(DEMO) && touch $(DEMO)/started
	$(PY) tools/dataset/make_demo_dataset.py --output $(DEMO)/dataset
	$(PY) train.py -c $(DEMO_CONFIG) --use-amp --seed=0
	$(PY) train.py -c $(DEMO_CONFIG) --test-only -r $(DEMO)/best.pth
	$(PY) tools/deployment/export_onnx.py -c $(DEMO_CONFIG) -r $(DEMO)/best.pth -o $(DEMO)/model.onnx
	$(PY) tools/inference/onnx_inf.py -m $(DEMO)/model.onnx -i $(DEMO)/dataset/val -o $(DEMO)/pictures --threshold 0.4
	$(PY) tools/demo_summary.py $(DEMO) --started $(DEMO)/started

test: $(VENV)/dev.installed lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 -m "not slow and not gpu"

lint: $(VENV)/dev.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

install: $(VENV)/export.installed

# A stamp is younger than the requirements it was made from, so a second run installs nothing.
$(VENV)/export.installed: requirements.txt requirements-export.txt | $(VENV)/bin/python
	$(PY) -m pip install --disable-pip-version-check --progress-bar off -q -r requirements-export.txt
	touch $@

$(VENV)/dev.installed: requirements-dev.txt requirements-lora.txt requirements-openvino.txt requirements-video.txt requirements-supervision.txt requirements-serve.txt $(VENV)/export.installed
	$(PY) -m pip install --disable-pip-version-check --progress-bar off -q -r requirements-dev.txt
	touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is older than 3.10: name another one, for instance make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) has no venv: install your system's python3-venv package"; exit 2; }

clean:
	rm -rf $(DEMO)
