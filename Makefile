# `make demo` runs the default study, `make test` the tests; both set up what they need first.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= config.yaml
CORES ?= all
SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python workflow_scripts/run_study.py \
	--study $(STUDY) --profile profiles/local --cores $(CORES) $(SNAKEMAKE_FLAGS)

.PHONY: demo test format resources pretrain
demo: $(BIN)/.run
	@$(SNAKEMAKE)
	@echo "The report: $(CURDIR)/results/report.html"

test: $(BIN)/.test
	$(BIN)/ruff check workflow_scripts tests
	$(BIN)/ruff format --check workflow_scripts tests
	$(BIN)/snakefmt --check Snakefile rules
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q

format: $(BIN)/.test
	$(BIN)/ruff check --fix workflow_scripts tests
	$(BIN)/ruff format workflow_scripts tests
	$(BIN)/snakefmt Snakefile rules

# The bundled datasets and encoder, made again from their sources (network, npm, apt-get).
resources: $(BIN)/.resources
	@$(SNAKEMAKE) resources
	cd results/resources && cp mnist.parquet fashion_mnist.parquet digits.parquet ../../resources/mini/

pretrain: $(BIN)/.resources
	@$(SNAKEMAKE) pretrained_encoder
	cp results/resources/clip/*.json results/resources/clip/*.gz \
		results/resources/clip/*.safetensors resources/mini/clip/

# A group of pyproject.toml in the virtual environment; torch and torchvision are chosen together.
$(BIN)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --group run $(if $(filter-out run,$*),--group $*)
	@touch $@
