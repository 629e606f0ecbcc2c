# Needs Python 3.11, make and a network to the package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
BUILDIFIER := @bazel/buildifier@8.2.1

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint smoke clean

help: ## list the targets (at once)
	@echo "make TARGET, where TARGET is one of (times on 2 CPU cores, after the"
	@echo "first installation into $(VENV), which takes a few minutes):"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) \
		| expand -t 14

demo: $(VENV)/.requirements ## train ATAT, its teacher and AT on digits, and compare them under attack (4 minutes)
	$(RUN) -m atat_tf.train --dataset=digits --workdir=runs/demo
	$(RUN) -m atat_tf.train --config=configs/at.py --dataset=digits --workdir=runs/demo/at
	$(RUN) -m atat_tf.evaluate --workdir=runs/demo/teacher,runs/demo/at,runs/demo

test: $(VENV)/.requirements-dev ## run the tests (4 minutes)
	$(RUN) -m pytest -q

test-long: $(VENV)/.requirements-dev ## run the tests that take long or need Bazel (5 minutes)
	$(RUN) -m pytest -q -m long

lint: $(VENV)/.requirements-dev ## check style, format and, where npm is there, the BUILD file (seconds)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	@if command -v npx >/dev/null; then \
		echo "buildifier BUILD MODULE.bazel"; \
		npx --yes $(BUILDIFIER) -mode=check -lint=warn BUILD MODULE.bazel; \
	else \
		echo "buildifier: skipped, there is no npm"; \
	fi

smoke: $(VENV)/.requirements ## train one epoch of ATAT on digits in a new folder (a minute)
	rm -rf runs/smoke
	$(RUN) -m atat_tf.train --dataset=digits --workdir=runs/smoke \
		--config.num_epochs=1 --config.teacher_num_epochs=1 \
		--config.evaluation.attacks="('clean', 'fgsm')"

clean: ## remove what lint and the tests leave; .venv and runs stay (at once)
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find atat_tf configs tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps are older than a requirements file only after it has changed.
$(VENV)/.requirements: requirements.txt | $(RUN)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.requirements-dev: requirements-dev.txt $(VENV)/.requirements | $(RUN)
	$(PIP) -r requirements-dev.txt
	@touch $@

$(RUN):
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("error: Expected Python 3.11 (make PYTHON=/path/to/python3.11). Received: " + sys.version.split()[0] + ".")'
	$(PYTHON) -m venv $(VENV)
