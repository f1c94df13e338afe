# Targets install what they need themselves, from the lock; `make` lists them.
PYTHON ?= python3
UV := .tools/bin/uv
RUN := .venv/bin/
.DEFAULT_GOAL := help
.PHONY: help install run demo test check format lint types proto proto-check

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

UV_VERSION := 0.13.8
$(UV):
	@echo "installing uv $(UV_VERSION) into .tools"
	@$(PYTHON) -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# One stamp, so that the environment is made anew exactly when the lock changed.
.venv/.installed: pyproject.toml uv.lock | $(UV)
	@echo "installing the locked dependencies into .venv"
	@$(UV) sync --frozen --quiet --all-extras && touch $@

install: .venv/.installed ## make .venv from the lock
