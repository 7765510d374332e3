# Datasets under `forecast:` are prepared, embedded and measured like any other, and never
# fine-tuned. The forecast rests on this study, or on the results of the one that the config names.
rule forecast_datasets:
    input:
        measures=list_measures(STUDY["forecast"]["datasets"]),
        tasks=(
            local(str(Path(STUDY["forecast"]["study"], "analysis/tasks.parquet")))
            if "study" in STUDY["forecast"]
            else "results/analysis/tasks.parquet"
        ),
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
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        weight=STUDY["forecast"]["weight"],
        code=[code_digest("forecast.forecast"), code_digest("forecast.text")],
        study=subpath(input.tasks, parent=True),
        folder=subpath(output.forecasts, parent=True),
    message:
        "Forecasting gain and forgetting for each model and method"
    shell:
        "python {input.script} --study {params.study:q} --measures {input.measures} "
        "--weight {params.weight} --output {params.folder} 2>&1 | tee {log}"
