# The other half of a half-done study: each model, method and dataset that has no outcome yet is
# forecast from what is on disk. Nothing is fine-tuned: finished trials are named by absolute paths,
# for which Snakemake has no rule.


use rule evaluate_model as evaluate_finished_models with:
    input:
        selections=lambda wildcards: list_finished_trials(wildcards.model, wildcards.method),
        manifests=list_manifests(),
        tests=ancient(expand("results/datasets/{test}/test.parquet", test=TESTS)),
        train=ancient(expand("results/datasets/{dataset}/train.parquet", dataset=DATASETS)),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TESTS.values()),
        trained=expand(
            "results/embeddings/{{model}}/{dataset}/{file}.parquet",
            dataset=DATASETS,
            file=["train", "text"],
        ),
        model=get_model_files,
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows="results/forecast/finished/{model}/{method}.parquet",
        classes="results/forecast/finished/{model}/{method}_classes.parquet",
        confusions="results/forecast/finished/{model}/{method}_confusions.parquet",
        drift="results/forecast/finished/{model}/{method}_drift.parquet",
    log:
        "logs/evaluate_finished_models/{model}/{method}.log",
    benchmark:
        "logs/benchmarks/evaluate_finished_models/{model}/{method}.tsv"
    message:
        "Testing what {wildcards.method} has finished of {wildcards.model}"


rule forecast_pairs:
    input:
        evaluations=list_known_evaluations,
        selections=list_all_finished_trials(),
        measures=list_measures(DATASETS),
        rehearsals=list_rehearsals(DATASETS),
        pilots=list_pilots(DATASETS),
        outcomes=[] if TRAINS else by_content(STUDY["outcomes"]),
        manifests=[] if TRAINS else list_manifests(),
        script=local("workflow_scripts/forecast_pairs.py"),
    output:
        **{name: f"results/forecast/{name}.parquet" for name in PAIR_TABLE_NAMES},
        csv=expand("results/forecast/{name}.csv", name=PAIR_TABLE_NAMES),
        text="results/forecast/pairs.txt",
    log:
        "logs/forecast_pairs.log",
    benchmark:
        "logs/benchmarks/forecast_pairs.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        runs=list(
            dict.fromkeys(
                f"{model}/{average_name(method)}"
                for method, recipe in STUDY["methods"].items()
                for model in recipe["models"]
            )
        ),
        datasets=[*DATASETS, *STUDY["without_images"]],
        outcomes="" if TRAINS else digest_contents(STUDY["outcomes"]),
        code=[code_digest("forecast.pairs"), code_digest("forecast.text")],
        folder=subpath(output.text, parent=True),
    message:
        "Forecasting each model, method and dataset that has no outcome yet"
    shell:
        "python {input.script:q} --evaluations {input.evaluations:q} "
        "--selections {input.selections:q} --measures {input.measures:q} "
        "--rehearsals {input.rehearsals:q} --pilots {input.pilots:q} --outcomes {input.outcomes:q} "
        "--manifests {input.manifests:q} --runs {params.runs:q} --datasets {params.datasets:q} "
        "--output {params.folder:q} 2>&1 | tee {log:q}"


rule write_pairs_page:
    input:
        **{name: f"results/forecast/{name}.parquet" for name in PAIR_TABLE_NAMES},
        page=[local(str(file)) for file in sorted(REPORT_PAGE.glob("[!.]*"))],
        script=local("workflow_scripts/pairs_page.py"),
    output:
        "results/forecast/pairs.html",
    log:
        "logs/write_pairs_page.log",
    benchmark:
        "logs/benchmarks/write_pairs_page.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        code=code_digest("report.pairs_page"),
        folder=subpath(input.pairs, parent=True),
    message:
        "Writing the page of the pairs without an outcome"
    shell:
        "python {input.script:q} --forecast {params.folder:q} --output {output:q} "
        "2>&1 | tee {log:q}"
