# `make demo` runs the default study, `make test` the tests; each sets up what it needs first.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= config.yaml
CORES ?= all
# The shell reads STUDY, DATA, MODEL and the like from its environment, as they are: make would
# split them at spaces, and run what follows a semicolon as a command.
export STUDY
# Packages of a cluster's module, which PYTHONPATH names, do not fit those of the virtual environment.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH
# Packages are compiled when they are first imported; without the result, each job would do it again.
unexport PYTHONDONTWRITEBYTECODE
SNAKEMAKE = $(BIN)/python workflow_scripts/run_study.py \
	--study "$$STUDY" --profile profiles/local --cores $(CORES) $(SNAKEMAKE_FLAGS)
# It may be that nobody reads on, as after `| head -1`.
SAY = trap '' PIPE; say() { printf '%s\n' "$$@" 2>/dev/null || true; }; say
CODE := workflow_scripts tests benchmarks

.PHONY: help demo report export forecast forecast-study fetch plan slurm-profile clean-orphans test configuration docs format suite suite-data

help: ## list the targets
	@echo "make TARGET [STUDY=config.yaml] [CORES=all]"
	@sed -n 's/^\([a-z -]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(BIN)/.run ## run the study STUDY (the default: the bundled one) to its report
	@$(SNAKEMAKE)
	@$(SAY) "The report: $$PWD/results/report.html"

report: $(BIN)/.run ## write the report of what STUDY has so far, also while it runs
	@$(BIN)/python workflow_scripts/report_so_far.py --study "$$STUDY"

# DATA is a folder with one subfolder per class. The forecast rests on the study in results/ if that
# has a dataset that the bundled study lacks, and otherwise on the bundled one. Without DATA, every
# pair of STUDY that has no outcome yet is forecast from those that have.
forecast: $(BIN)/.run ## forecast accuracy and forgetting for the images in DATA, or the rest of STUDY
	@if test -n "$$DATA"; then \
		$(BIN)/python workflow_scripts/forecast_folder.py --data "$$DATA" --study "$$STUDY" \
			$${CAPTION:+--caption "$$CAPTION"} $${WEIGHT:+--weight "$$WEIGHT"} \
			$${PILOT:+--pilot "$$PILOT"} --profile profiles/local --cores $(CORES) $(SNAKEMAKE_FLAGS); \
	else \
		$(BIN)/python workflow_scripts/forecast_rest.py --study "$$STUDY" \
			--profile profiles/local --cores $(CORES) $(SNAKEMAKE_FLAGS); \
	fi
	@name=$${DATA:+forecast}; name=results/forecast/$${name:-pairs}; \
		$(SAY) "$$(cat $$name.txt 2>/dev/null)" "The page: $$PWD/$$name.html"

# OUT is a new folder. WISE_FT=0.5 mixes the weights with those of the base model, half and half.
export: $(BIN)/.run ## write the model MODEL METHOD DATASET of STUDY to the folder OUT for open_clip
	@test -n "$$MODEL" -a -n "$$METHOD" -a -n "$$DATASET" -a -n "$$OUT" || { \
		echo "name a model: make export MODEL=... METHOD=... DATASET=... OUT=folder"; exit 2; }
	@$(BIN)/python workflow_scripts/export_model.py --study "$$STUDY" --model "$$MODEL" \
		--method "$$METHOD" --dataset "$$DATASET" --output "$$OUT" $${WISE_FT:+--wise-ft "$$WISE_FT"}

# Needs a network. The files are listed first; FETCH_FLAGS=--list only lists them.
fetch: $(BIN)/.run ## download the public datasets and weights of STUDY, once
	@$(BIN)/python workflow_scripts/fetch_study.py --study "$$STUDY" $(FETCH_FLAGS)

plan: $(BIN)/.run ## estimate jobs, hours, disk and memory of STUDY without running it
	@$(BIN)/python workflow_scripts/plan.py --study "$$STUDY" \
		$(if $(TFLOPS),--tflops $(TFLOPS))

# Snakemake looks for profiles by name in this folder.
PROFILES = $(or $(XDG_CONFIG_HOME),$(HOME)/.config)/snakemake
slurm-profile: $(BIN)/.run ## link profiles/slurm, so that `snakemake --profile slurm` works
	@if test -e "$(PROFILES)/slurm" -a ! -L "$(PROFILES)/slurm"; then \
		echo "$(PROFILES)/slurm is a profile of yours already: move it, or name profiles/slurm"; exit 2; fi
	@mkdir -p "$(PROFILES)" && ln -sfn "$(CURDIR)/profiles/slurm" "$(PROFILES)/slurm"
	@echo "linked; set your site's partition and account in profiles/slurm/config.yaml, then:"
	@echo ". .venv/bin/activate && snakemake --profile slurm"

clean-orphans: $(BIN)/.run ## cancel the Slurm jobs that a killed Snakemake left in this folder
	@$(BIN)/python workflow_scripts/clean_orphans.py

# Each module's tests share a worker; modules marked `long` start first (tests/conftest.py). There
# are three workers for two cores, because the tests of Slurm mostly wait.
test: $(BIN)/.test ## check style, imports, types and spelling, and run the tests
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/snakefmt --check Snakefile rules
	PYTHONPATH=workflow_scripts $(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/mypy & types=$$!; \
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types && exit $$tests

configuration: $(BIN)/.run ## write docs/configuration.md from the schema of the config
	@$(BIN)/python workflow_scripts/document_config.py --output docs/configuration.md

docs: $(BIN)/.docs ## build the manual as a site in the folder site/
	$(BIN)/mkdocs build --strict

format: $(BIN)/.test ## format the code and the rules
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/snakefmt Snakefile rules

# The rebuilt files lie in results/resources/mini and are compared with resources/mini. This needs a
# network, npm and apt-get.
suite-data: $(BIN)/.resources ## rebuild the bundled tasks from their sources
suite: $(BIN)/.resources ## rebuild the bundled tasks and encoders
suite suite-data:
	@$(SNAKEMAKE) $(subst -,_,$@)

# The tables go into resources/mini/study, on which the forecasts of a fresh checkout rest. This needs
# a network, npm and apt-get.
forecast-study: STUDY = studies/forecast.yaml
forecast-study: $(BIN)/.resources ## run the study that forecasts rest on, and bundle its tables
	$(BIN)/python workflow_scripts/suite.py package-tasks \
		--pins resources/forecast_study/packages.txt --packages results/packages \
		--output results/forecast_study/tasks
	@$(SNAKEMAKE)
	$(BIN)/python workflow_scripts/suite.py study --results results --config "$$STUDY" \
		--output resources/mini/study

# A dependency group of pyproject.toml, installed into the virtual environment together with the
# group `run`, so that pip chooses matching versions of torch and torchvision.
# An environment of an older Python, or one that was left half made, is made again.
# Compiling all packages would take minutes, and most modules are never imported. Modules outside
# packages are compiled at once: the job server takes a change of their folder for an installation.
COMPILE = import compileall, sysconfig; \
	compileall.compile_dir(sysconfig.get_path('purelib'), maxlevels=0, quiet=2)
SUPPORTED = import sys; sys.exit(sys.version_info < (3, 11))
$(BIN)/.%: pyproject.toml
	@$(BIN)/python -c "import pip; $(SUPPORTED)" 2>/dev/null || { \
		$(PYTHON) -c "$(SUPPORTED)" || { \
			echo "foretune needs Python 3.11 or later, and $(PYTHON) is" \
				"$$($(PYTHON) --version 2>&1 || true): make PYTHON=python3.12 $(MAKECMDGOALS)"; \
			exit 2; }; \
		$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 2; }; }
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --no-compile --group run $(if $(filter-out run,$*),--group $*)
	$(BIN)/python -c "$(COMPILE)"
	@touch $@
