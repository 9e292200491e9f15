# make run: this machine on one screen. make test: everything that CI checks. Both set up what they need.

VENV ?= .venv
PYTHON ?=
# Further versions that the tests run on where they are found, besides the one of $(VENV).
OTHERS ?= $(shell scripts/pythons.sh)
# All processors share the work, a file each, in the order of tests/conftest.py; `make test-this SHARED=` keeps it in
# one process.
SHARED ?= -n auto --dist loadfile --no-loadscope-reorder
GOLDEN := tests/test_golden.py tests/test_doctor.py tests/test_prometheus.py tests/test_metrics_reference.py \
	tests/test_config.py tests/test_budget_table.py tests/test_estimate.py tests/test_dashboards.py tests/test_rules.py \
	tests/audit/test_catalogue.py tests/audit/test_examples.py tests/audit/test_pages.py

.PHONY: run test test-this lint bench soak demos golden pictures deb clean

run: $(VENV)/ready
	@sh scripts/first-look.sh $(VENV)/bin/spark-agent

test: $(OTHERS:%=test-%) test-this

test-this: $(VENV)/ready-test
	@sh scripts/rigs.sh
	@$(VENV)/bin/python -m pytest $(SHARED) $(ARGS)

# The suite once more on another Python; linters, installs, rigs and most examples need no repetition.
test-%: pyproject.toml
	@sh scripts/venv.sh .venv-$* '.[test]' $$(scripts/pythons.sh $*)
	@sh scripts/rigs.sh
	@.venv-$*/bin/python -m pytest -q $(SHARED) --hypothesis-profile=again -m 'not lint and not install and not rig and not once' $(ARGS)

lint: $(VENV)/ready-test
	@$(VENV)/bin/python -m pytest -q -m lint

bench: $(VENV)/ready-test
	@sh scripts/prometheus.sh
	@$(VENV)/bin/python tests/bench.py

# 24 hours of beats, played fast: half an hour, and what is held in the middle and at the end.
soak: $(VENV)/ready-test
	@SOAK_BEATS=86400 $(VENV)/bin/python -m pytest -q -rP tests/test_soak.py

# The built-in demo machines; what must come out of the tests, and in the docs: rewritten from what the code says now.
demos: $(VENV)/ready-test
	@$(VENV)/bin/python tests/imagine.py

golden: $(VENV)/ready-test
	@$(VENV)/bin/python -m pytest -q $(GOLDEN) --update-golden

# The pictures of the dashboards in docs/images, drawn by Grafana's components: needs node, npm and Chromium.
pictures: $(VENV)/ready-test
	@sh scripts/prometheus.sh
	@$(VENV)/bin/python tests/grafana/draw.py

# dist/spark-agent_VERSION_all.deb, for Ubuntu 24.04, Debian 12 and later.
deb: $(VENV)/ready
	@$(VENV)/bin/python packaging/deb/build.py

$(VENV)/ready: pyproject.toml
	@sh scripts/venv.sh $(VENV) . $(PYTHON)

$(VENV)/ready-test: pyproject.toml
	@sh scripts/venv.sh $(VENV) '.[test]' $(PYTHON) && cp $(VENV)/ready $(VENV)/ready-test

clean:
	rm -rf .venv* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .rigs
