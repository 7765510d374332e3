rule analyze_study:
    input:
        evaluations=EVALUATIONS,
        classes=CLASS_EVALUATIONS,
        confusions=CONFUSIONS,
        drifts=DRIFTS,
        selections=SELECTIONS,
        measures=MEASURED,
        embeddings=MEASURED_EMBEDDINGS,
        paper=local("studies/paper.yaml"),
        paper_numbers=local("workflow_scripts/foretune/analysis/paper_tables.csv"),
        script=local("workflow_scripts/analyze.py"),
    output:
        outcomes="results/analysis/outcomes.parquet",
        class_accuracy="results/analysis/class_accuracy.parquet",
        confusions="results/analysis/confusions.parquet",
        tasks="results/analysis/tasks.parquet",
        wise_ft="results/analysis/wise_ft.parquet",
        drift="results/analysis/drift.parquet",
        measures="results/analysis/measures.parquet",
        curves="results/analysis/curves.parquet",
        statistics="results/analysis/statistics.json",
        statistics_table="results/analysis/statistics.parquet",
        differences="results/analysis/differences.parquet",
        pooled="results/analysis/pooled.parquet",
        paper_tables="results/analysis/paper_tables.parquet",
        paper_tables_text="results/analysis/paper_tables.md",
        findings="results/analysis/findings.parquet",
        evidence="results/analysis/findings_evidence.parquet",
        outcomes_csv=report(
            "results/analysis/outcomes.csv",
            caption="captions/outcomes.rst",
            category="Tables",
            labels={"table": "outcomes"},
        ),
        tasks_csv=report(
            "results/analysis/tasks.csv",
            caption="captions/tasks.rst",
            category="Tables",
            labels={"table": "tasks"},
        ),
        statistics_csv=report(
            "results/analysis/statistics.csv",
            caption="captions/statistics.rst",
            category="Tables",
            labels={"table": "statistics"},
        ),
        findings_csv=report(
            "results/analysis/findings.csv",
            caption="captions/findings.rst",
            category="Tables",
            labels={"table": "findings"},
        ),
        differences_csv="results/analysis/differences.csv",
        pooled_csv="results/analysis/pooled.csv",
        paper_tables_csv="results/analysis/paper_tables.csv",
        evidence_csv="results/analysis/findings_evidence.csv",
        wise_ft_csv="results/analysis/wise_ft.csv",
        drift_csv="results/analysis/drift.csv",
        class_accuracy_csv="results/analysis/class_accuracy.csv",
        confusions_csv=report(
            "results/analysis/confusions.csv",
            caption="captions/confusions.rst",
            category="Tables",
            labels={"table": "confusions"},
        ),
        measures_csv="results/analysis/measures.csv",
        curves_csv="results/analysis/curves.csv",
    log:
        "logs/analyze_study.log",
    benchmark:
        "logs/benchmarks/analyze_study.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        seed=STUDY["seed"],
        code=code_digest("analysis.study_tables"),
        # A function, because Snakemake would look for wildcards in the text.
        models=lambda wildcards: as_json(STUDY["models"]),
        datasets=sorted(DATASETS),
        folder=subpath(output.statistics, parent=True),
    shell:
        "python {input.script} --evaluations {input.evaluations} --classes {input.classes} "
        "--confusions {input.confusions} --drifts {input.drifts} "
        "--selections {input.selections} --measures {input.measures} {input.embeddings} "
        "--models {params.models:q} --datasets {params.datasets} --paper {input.paper} "
        "--seed {params.seed} --output {params.folder} 2>&1 | tee {log}"
