# Needs Python 3.11, 3.12 or 3.13, make and a network to the package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
BUILDIFIER := @bazel/buildifier@8.2.1

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-long lint docs smoke wheel clean
MODELS = runs/demo/models/atat
SOCKET = runs/demo/serving.sock

help: ## list the targets (at once)
	@echo "make TARGET, where TARGET is one of (times on 2 CPU cores, after the"
	@echo "first installation into $(VENV), which takes a few minutes):"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) \
		| expand -t 14

demo: $(VENV)/.requirements ## train ATAT, its teacher and AT on digits, attack them, serve an image (5 minutes)
	$(RUN) -m atat_tf.train --dataset=digits --workdir=runs/demo
	$(RUN) -m atat_tf.train --config=configs/at.py --dataset=digits --workdir=runs/demo/at
	$(RUN) -m atat_tf.evaluate --workdirs=runs/demo/teacher,runs/demo/at,runs/demo
	$(RUN) -m serving.export --workdir=runs/demo --output=$(MODELS) --reference_images=300
	$(RUN) -m serving.sample_images --workdir=runs/demo --output=runs/demo/images
	@$(RUN) -m serving.local_server --model_name=atat --model_base_path=$(CURDIR)/$(MODELS) \
		--port=0 --grpc_socket_path=$(SOCKET) 2>runs/demo/serving.log & server=$$!; \
	trap "kill $$server; wait $$server" EXIT; \
	$(RUN) -m serving.client --server=unix:$(SOCKET) --model_name=atat --timeout=60 \
		$$(ls runs/demo/images/*.png | head -1)
	@echo "On digits the order of these rows says nothing of the methods: docs/results.md has CIFAR-10."
	@echo "Attack these networks on a web page:"
	@echo "  $(RUN) -m atat_tf demo --workdirs=runs/demo/teacher,runs/demo/at,runs/demo"

serve: $(VENV)/.requirements ## serve the demo's export on gRPC port 8500 and REST port 8501, until Ctrl-C
	@test -d $(MODELS) || { echo "error: Expected an export in $(MODELS). Received: none; make demo writes it." >&2; exit 1; }
	$(RUN) -m serving.local_server --model_name=atat --model_base_path=$(CURDIR)/$(MODELS) \
		--port=8500 --rest_api_port=8501

test: $(VENV)/.requirements-dev ## run the tests (7 minutes)
	$(RUN) -m pytest -q --numprocesses=4 --dist=loadscope --no-loadscope-reorder

test-long: $(VENV)/.requirements-dev ## run the tests that take long or need Bazel or Chromium (25 minutes)
	$(RUN) -m pytest -q -m long

lint: $(VENV)/.requirements-dev ## check style, format, who imports whom, types and BUILD files (a minute)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	PYTHONPATH=. $(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/mypy
	$(RUN) tools/build_files.py --check
	@if command -v npx >/dev/null; then \
		echo "buildifier"; \
		npx --yes $(BUILDIFIER) -mode=check -lint=warn $$(git ls-files '*BUILD' '*.bazel'); \
	else \
		echo "buildifier: skipped, there is no npm"; \
	fi

docs: $(VENV)/.requirements-docs ## build the documentation site, run its notebooks, check its links (15 minutes)
	$(RUN) -m sphinx -W --keep-going -q docs docs/_build/html
	$(RUN) tools/check_links.py docs/_build/html

smoke: $(VENV)/.requirements ## train one epoch of ATAT on digits in a new folder (a minute)
	rm -rf runs/smoke
	$(RUN) -m atat_tf.train --dataset=digits --workdir=runs/smoke \
		--config.num_epochs=1 --config.teacher_num_epochs=1 \
		--config.evaluation.attacks="('clean', 'fgsm')"

wheel: $(VENV)/.requirements-dev ## build the wheel, install it elsewhere, train from an empty folder (3 minutes)
	.ci/wheel $(RUN)

clean: ## remove what lint and the tests leave; .venv and runs stay (at once)
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find atat_tf benchmarks configs serving tests tools -name __pycache__ -prune -exec rm -rf {} +

# The stamps are older than a requirements file only after it has changed.
$(VENV)/.requirements: requirements.txt | $(RUN)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.requirements-dev: requirements-dev.txt $(VENV)/.requirements | $(RUN)
	$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/.requirements-docs: requirements-docs.txt $(VENV)/.requirements | $(RUN)
	$(PIP) -r requirements-docs.txt
	@touch $@

$(RUN):
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("error: Expected Python 3.11, 3.12 or 3.13 (make PYTHON=/path/to/python3.11). Received: " + sys.version.split()[0] + ".")'
	$(PYTHON) -m venv $(VENV)
