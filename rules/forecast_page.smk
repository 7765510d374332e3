# One page with the forecasts of all datasets under `forecast:`, with pictures of their images.
rule write_forecast_page:
    input:
        **{
            name: f"results/forecast/{name}.parquet"
            for name in ("forecasts", "candidates", "rankings", "learning")
        },
        # The script gets the folders; as inputs, their files make the page rerun.
        rehearsals=expand(
            "results/rehearsals/{model}/{dataset}{file}",
            model=FORECAST_MODELS,
            dataset=STUDY["forecast"]["datasets"],
            file=[".json", "_images.parquet"],
        ),
        datasets=expand(
            "results/datasets/{dataset}/{file}",
            dataset=STUDY["forecast"]["datasets"],
            file=["dataset.json", "notes.json", "train.parquet"],
        ),
        tasks=(
            by_content(Path(STUDY["forecast"]["study"], "analysis/tasks.parquet"))
            if "study" in STUDY["forecast"]
            else "results/analysis/tasks.parquet"
        ),
        page=[local(str(file)) for file in sorted(REPORT_PAGE.glob("[!.]*"))],
        script=local("workflow_scripts/forecast_page.py"),
    output:
        report(
            "results/forecast/forecast.html",
            caption="captions/forecast_page.rst",
            category="Report",
            labels={"page": "the forecasts"},
        ),
    log:
        "logs/write_forecast_page.log",
    benchmark:
        "logs/benchmarks/write_forecast_page.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        other_study=get_other_study_digest(),
        code=code_digest("report.forecast_page"),
        folder=subpath(input.forecasts, parent=True),
        rehearsals=lambda wildcards, input: Path(input.rehearsals[0]).parents[1],
        datasets=lambda wildcards, input: Path(input.datasets[0]).parents[1],
    message:
        "Writing the page of the forecast"
    shell:
        "python {input.script:q} --forecast {params.folder:q} --rehearsals {params.rehearsals:q} "
        "--datasets {params.datasets:q} --tasks {input.tasks:q} --output {output:q} "
        "2>&1 | tee {log:q}"
