rule write_report:
    input:
        outcomes="results/analysis/outcomes.parquet",
        tasks="results/analysis/tasks.parquet",
        statistics="results/analysis/statistics.json",
        measured="results/analysis/measures.parquet",
        curves="results/analysis/curves.parquet",
        epochs=EPOCHS,
        datasets=MANIFESTS,
        tests=ancient(expand("results/datasets/{test}/test.parquet", test=TESTS)),
        measures=MEASURED,
        template=local("workflow_scripts/foretune/report.html.j2"),
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
        code=[code_digest("report"), code_digest("provenance")],
        analysis=subpath(input.statistics, parent=True),
    shell:
        "python {input.script} --analysis {params.analysis} --epochs {input.epochs} "
        "--datasets {input.datasets} --measures {input.measures} --config {params.config:q} "
        "--provenance {output.provenance} --output {output.html} 2>&1 | tee {log}"
