# `make demo` runs the default study, `make test` the tests; both set up what they need first.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= config.yaml
CORES ?= all
SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python workflow_scripts/run_study.py \
	--study $(STUDY) --profile profiles/local --cores $(CORES) $(SNAKEMAKE_FLAGS)

.PHONY: demo forecast fetch plan test format suite suite-data slurm-profile clean-orphans
demo: $(BIN)/.run
	@$(SNAKEMAKE)
	@echo "The report: $(CURDIR)/results/report.html"

# What fine-tuning would do to the images in DATA, a folder with one subfolder a class, by the study
# in results/, or where none was completed, by the default study's bundled results.
# make gives its variables to the shell, which alone takes quotes and spaces for what they are.
forecast: $(BIN)/.run
	@test -n "$$DATA" || { echo "give the images: make forecast DATA=path/to/folder"; exit 2; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python workflow_scripts/forecast_folder.py \
		--data "$$DATA" --study $(STUDY) $${CAPTION:+--caption "$$CAPTION"} \
		$${WEIGHT:+--weight $$WEIGHT} --profile profiles/local --cores $(CORES) \
		$(SNAKEMAKE_FLAGS)
	@cat results/forecast/forecast.txt 2>/dev/null || true
	@echo "All of it: $(CURDIR)/results/forecast/forecasts.csv and rankings.csv"

# The public datasets and the weights that STUDY names, once, on a machine with network. They are
# listed first; FETCH_FLAGS=--list lists them only.
fetch: $(BIN)/.run
	@$(BIN)/python workflow_scripts/fetch_study.py --study $(STUDY) $(FETCH_FLAGS)

# profiles/slurm under the name slurm, where Snakemake looks for profiles: `snakemake --profile slurm`.
PROFILES = $(or $(XDG_CONFIG_HOME),$(HOME)/.config)/snakemake
slurm-profile: $(BIN)/.run
	@if test -e "$(PROFILES)/slurm" -a ! -L "$(PROFILES)/slurm"; then \
		echo "$(PROFILES)/slurm is a profile of yours already: move it, or name profiles/slurm"; exit 2; fi
	@mkdir -p "$(PROFILES)" && ln -sfn "$(CURDIR)/profiles/slurm" "$(PROFILES)/slurm"
	@echo "linked; set your site's partition and account in profiles/slurm/config.yaml, then:"
	@echo ". .venv/bin/activate && snakemake --profile slurm"

# After a Snakemake was killed: its Slurm jobs of this folder, cancelled and waited for.
clean-orphans: $(BIN)/.run
	@$(BIN)/python workflow_scripts/clean_orphans.py

test: $(BIN)/.test
	$(BIN)/ruff check workflow_scripts tests benchmarks
	$(BIN)/ruff format --check workflow_scripts tests benchmarks
	$(BIN)/snakefmt --check Snakefile rules
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

format: $(BIN)/.test
	$(BIN)/ruff check --fix workflow_scripts tests benchmarks
	$(BIN)/ruff format workflow_scripts tests benchmarks
	$(BIN)/snakefmt Snakefile rules

# What the study will take, before its first job: jobs, hours, disk and memory. Nothing is run.
plan: $(BIN)/.run
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python workflow_scripts/plan.py --study $(STUDY) \
		$(if $(TFLOPS),--tflops $(TFLOPS))

# The bundled tasks (suite-data) and also the encoders (suite), made again from their sources into
# results/resources/mini and compared with resources/mini (network, npm, apt-get).
suite suite-data: $(BIN)/.resources
	@$(SNAKEMAKE) $(subst -,_,$@)

# A group of pyproject.toml in the virtual environment; torch and torchvision are chosen together.
$(BIN)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --group run $(if $(filter-out run,$*),--group $*)
	@touch $@
