# Both are made from the analysis' tables, which are inputs by name so that a change is noticed.
STUDY_TABLES = {
    name: f"results/analysis/{name}.parquet"
    for name in [
        "outcomes",
        "tasks",
        "measures",
        "curves",
        "drift",
        "wise_ft",
        "differences",
        "pooled",
        "paper_tables",
        "findings_evidence",
        "confusions",
    ]
}


rule write_report:
    input:
        **STUDY_TABLES,
        statistics="results/analysis/statistics.parquet",
        forecasts=FORECAST_TABLES,
        epochs=EPOCHS,
        datasets=MANIFESTS,
        tests=ancient(expand("results/datasets/{test}/test.parquet", test=TESTS)),
        measured=MEASURED,
        page=[
            local(f"workflow_scripts/foretune/report/page/{file}")
            for file in [
                "report.html.j2",
                "style.css",
                "data.js",
                "tables.js",
                "charts.js",
                "page.js",
            ]
        ],
        script=local("workflow_scripts/report.py"),
    output:
        provenance="results/provenance.json",
        html=report(
            "results/report.html",
            caption="captions/report.rst",
            category="Report",
            labels={"page": "the whole study"},
        ),
    log:
        "logs/write_report.log",
    benchmark:
        "logs/benchmarks/write_report.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        # A function, because Snakemake would look for wildcards in the text of a title.
        config=lambda wildcards: as_json(STUDY),  # a title may have braces
        code=[code_digest("report.build"), code_digest("report.provenance")],
        analysis=subpath(input.statistics, parent=True),
        forecast=lambda wildcards, input: (
            f"--forecast {Path(input.forecasts[0]).parent}" if input.forecasts else ""
        ),
    shell:
        "python {input.script} --analysis {params.analysis} --epochs {input.epochs} "
        "--datasets {input.datasets} --measures {input.measured} {params.forecast} "
        "--config {params.config:q} "
        "--provenance {output.provenance} --output {output.html} 2>&1 | tee {log}"


rule draw_figures:
    input:
        tasks="results/analysis/tasks.parquet",
        statistics="results/analysis/statistics.parquet",
        outcomes="results/analysis/outcomes.parquet",
        wise_ft="results/analysis/wise_ft.parquet",
        epochs=EPOCHS,
        script=local("workflow_scripts/draw_figures.py"),
    output:
        models=report(
            "results/figures/models.svg",
            caption="captions/models.rst",
            category="Figures",
            labels={"figure": "gain and forgetting against IIMM", "by": "model"},
        ),
        methods=report(
            "results/figures/methods.svg",
            caption="captions/methods.rst",
            category="Figures",
            labels={"figure": "gain and forgetting against IIMM", "by": "method"},
        ),
        trade_off=report(
            "results/figures/trade_off.svg",
            caption="captions/trade_off.rst",
            category="Figures",
            labels={"figure": "gain against forgetting", "by": "model"},
        ),
        training=report(
            "results/figures/training.svg",
            caption="captions/training.rst",
            category="Figures",
            labels={"figure": "training curves", "by": "model and method"},
        ),
        # Snakemake's report shows one of those that have the same labels.
        accuracy=[
            report(
                f"results/figures/accuracy_{model}.svg",
                caption="captions/accuracy.rst",
                category="Figures",
                labels={
                    "figure": f"accuracy of {model}, trained on × evaluated on",
                    "by": "method",
                },
            )
            for model in MODELS
        ],
    log:
        "logs/draw_figures.log",
    benchmark:
        "logs/benchmarks/draw_figures.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("report.paper_figures"),
        models=MODELS,
        analysis=subpath(input.statistics, parent=True),
        folder=subpath(output.models, parent=True),
    shell:
        "python {input.script} --analysis {params.analysis} --epochs {input.epochs} "
        "--models {params.models:q} --output {params.folder} 2>&1 | tee {log}"
