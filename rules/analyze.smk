rule analyze_study:
    input:
        evaluations=list_evaluations(),
        classes=list_evaluations("_classes"),
        confusions=list_evaluations("_confusions"),
        drifts=list_drifts(),
        selections=list_all_selections(),
        measures=list_measures(DATASETS),
        rehearsals=list_rehearsals(DATASETS),
        pilots=list_pilots(DATASETS),
        embeddings=list_external_measures(),
        # Accuracies from elsewhere take the place of what the study's own jobs would have found.
        outcomes=[] if TRAINS else by_content(STUDY["outcomes"]),
        manifests=[] if TRAINS else list_manifests(),
        paper=local("studies/paper.yaml"),
        paper_numbers=local("workflow_scripts/foretune/analysis/paper_tables.csv"),
        script=local("workflow_scripts/analyze.py"),
    output:
        **{name: f"results/analysis/{name}.parquet" for name in TABLE_NAMES},
        **{f"{name}_csv": make_csv_output(name) for name in TABLE_NAMES},
        statistics_json="results/analysis/statistics.json",
        paper_tables_text="results/analysis/paper_tables.md",
    log:
        "logs/analyze_study.log",
    benchmark:
        "logs/benchmarks/analyze_study.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=get_tables_mb,
        runtime=per_attempt(30),
    params:
        seed=STUDY["seed"],
        outcomes="" if TRAINS else digest_contents(STUDY["outcomes"]),
        code=code_digest("analysis.study_tables"),
        # A function, because Snakemake would take braces in the text for wildcards.
        models=get_model_specs,
        datasets=sorted([*DATASETS, *STUDY["without_images"]]),
        folder=subpath(output.statistics, parent=True),
    message:
        "Analyzing how measures relate to gain and forgetting"
    shell:
        "printf %s {params.models:q} | "
        "python {input.script:q} --evaluations {input.evaluations:q} --classes {input.classes:q} "
        "--confusions {input.confusions:q} --drifts {input.drifts:q} "
        "--selections {input.selections:q} --measures {input.measures:q} {input.embeddings:q} "
        "--rehearsals {input.rehearsals:q} --pilots {input.pilots:q} "
        "--outcomes {input.outcomes:q} --manifests {input.manifests:q} "
        "--models - --datasets {params.datasets:q} --paper {input.paper:q} "
        "--seed {params.seed} --output {params.folder:q} 2>&1 | tee {log:q}"
