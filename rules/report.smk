# The template, style and scripts of the page.
REPORT_PAGE = Path("workflow_scripts/foretune/report/page")


rule write_report:
    input:
        # The script gets the tables' folder; as inputs, they make the report rerun.
        **{name: f"results/analysis/{name}.parquet" for name in REPORT_TABLE_NAMES},
        forecasts=list_forecast_tables(),
        epochs=list_trial_files("epochs.parquet"),
        datasets=list_manifests(),
        notes=list_notes(TESTS),
        tests=ancient(expand("results/datasets/{test}/test.parquet", test=TESTS)),
        measured=list_measures(DATASETS),
        page=[local(str(file)) for file in sorted(REPORT_PAGE.glob("[!.]*"))],
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
        mem_mb=get_tables_mb,
        runtime=per_attempt(30),
    params:
        # A function, because Snakemake would take braces in a title for wildcards.
        config=lambda wildcards: as_json(STUDY),
        code=[code_digest("report.build"), code_digest("report.provenance")],
        analysis=subpath(input.statistics, parent=True),
        forecast=lambda wildcards, input: (
            f"--forecast {Path(input.forecasts[0]).parent}" if input.forecasts else ""
        ),
    message:
        "Writing the HTML report"
    shell:
        "printf %s {params.config:q} | "
        "python {input.script:q} --analysis {params.analysis:q} --epochs {input.epochs:q} "
        "--datasets {input.datasets:q} --measures {input.measured:q} {params.forecast} "
        "--config - --provenance {output.provenance:q} --output {output.html:q} "
        "2>&1 | tee {log:q}"


rule draw_figures:
    input:
        tasks="results/analysis/tasks.parquet",
        statistics="results/analysis/statistics.parquet",
        outcomes="results/analysis/outcomes.parquet",
        front="results/analysis/front.parquet",
        epochs=list_trial_files("epochs.parquet"),
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
        # Labels differ by model: of figures with equal labels, Snakemake's report shows only one.
        training=[
            report(
                f"results/figures/training_{model}.svg",
                caption="captions/training.rst",
                category="Figures",
                labels={"figure": f"training curves of {model}", "by": "method"},
            )
            for model in MODELS
        ],
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
        mem_mb=get_tables_mb,
        runtime=per_attempt(30),
    params:
        code=code_digest("report.paper_figures"),
        models=MODELS,
        analysis=subpath(input.statistics, parent=True),
        folder=subpath(output.models, parent=True),
    message:
        "Drawing the figures"
    shell:
        "python {input.script:q} --analysis {params.analysis:q} --epochs {input.epochs:q} "
        "--models {params.models:q} --output {params.folder:q} 2>&1 | tee {log:q}"
