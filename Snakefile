from snakemake.utils import min_version

min_version("9.10")


# A study given by --configfile is whole: merged into this one, it would keep the demo's datasets.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/needs.smk"
include: "rules/prepare_dataset.smk"
include: "rules/embed.smk"
include: "rules/measure.smk"
include: "rules/finetune.smk"
include: "rules/evaluate.smk"
include: "rules/analyze.smk"
include: "rules/forecast.smk"
include: "rules/report.smk"
include: "rules/suite.smk"


# Also without run_study.py, which has the lock already. Not at a dry run, nor within a job.
onstart:
    begin_alone()


rule all:
    default_target: True
    input:
        final_output(),
