# Datasets under `forecast:` are prepared, embedded and measured by the rules of any dataset, and
# never fine-tuned. The study is this one, or another's results folder.
rule forecast_datasets:
    input:
        measures=FORECAST_MEASURED,
        tasks=FORECAST_TASKS,
        script=local("workflow_scripts/forecast.py"),
    output:
        forecasts="results/forecast/forecasts.parquet",
        rankings="results/forecast/rankings.parquet",
        forecasts_csv=report(
            "results/forecast/forecasts.csv",
            caption="captions/forecasts.rst",
            category="Tables",
            labels={"table": "forecasts"},
        ),
        rankings_csv="results/forecast/rankings.csv",
        text="results/forecast/forecast.txt",
    log:
        "logs/forecast_datasets.log",
    benchmark:
        "logs/benchmarks/forecast_datasets.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        weight=STUDY["forecast"]["weight"],
        code=[code_digest("forecast.forecast"), code_digest("forecast.text")],
        study=subpath(input.tasks, parent=True),
        folder=subpath(output.forecasts, parent=True),
    shell:
        "python {input.script} --study {params.study:q} --measures {input.measures} "
        "--weight {params.weight} --output {params.folder} 2>&1 | tee {log}"
