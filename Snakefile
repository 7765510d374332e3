from snakemake.utils import min_version

min_version("9.10")


# --configfile replaces config.yaml. Merged, the study would keep the default study's datasets.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


# Snakemake's own prefix, which this one replaces, makes a job fail if any part of its command does.
# Jobs use the packages of their Python and no others, such as those of a cluster's module or, in a
# conda environment, of the user's home. If a display has the terminal, they print into a file. A job
# goes on if nobody reads what it prints, as after `| head -1`: tee writes on into the log.
shell.prefix(
    "set -euo pipefail; "
    "unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH; export PYTHONNOUSERSITE=1; "
    'test -z "${{FORETUNE_RUN_LOG:-}}" || exec >>"$FORETUNE_RUN_LOG" 2>&1; '
    "tee() {{ trap '' PIPE; command tee \"$@\" || true; }}; "
)


include: "rules/study.smk"
include: "rules/inputs.smk"
include: "rules/targets.smk"
include: "rules/job_resources.smk"
include: "rules/prepare_dataset.smk"
include: "rules/embed.smk"
include: "rules/embed_pooled.smk"
include: "rules/measure.smk"
include: "rules/rehearse.smk"
include: "rules/finetune.smk"
include: "rules/pilot.smk"
include: "rules/evaluate.smk"
include: "rules/analyze.smk"
include: "rules/forecast.smk"
include: "rules/report.smk"
include: "rules/forecast_page.smk"
include: "rules/forecast_pairs.smk"
include: "rules/suite.smk"


# A dry run and a job do not get here. run_study.py holds the lock already.
onstart:
    refuse_other_runs()


rule all:
    default_target: True
    input:
        final_output(),
    message:
        "The study is complete: results/report.html"


# Snakemake prints a message instead of a job's files, wildcards and resources, which a dry run
# exists to list; `make plan` reads them. While rules are read, only the command line tells that
# this is a dry run.
if any(re.fullmatch(r"-n\w*|--dry-?run", word) for word in sys.argv):
    for job_rule in workflow.rules:
        job_rule.message = None
