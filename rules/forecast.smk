# Datasets under `forecast:` are prepared, embedded, measured and rehearsed like any
# other, and never fine-tuned. The forecast rests on this study, or on the results of the one that
# the config names.
FORECAST_TEST = "results/forecast/tests/{model}/{method}/{dataset}"


# What needs no forecast is tested: the zero-shot model and what is trained on embeddings. Only
# accuracies are read, which no temperature changes.
use rule evaluate_adapter as test_forecast_adapter with:
    input:
        selections=lambda wildcards: list_selections(
            wildcards.model, wildcards.method, [wildcards.dataset]
        ),
        manifests="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/test.parquet",
        texts="results/embeddings/{model}/{dataset}/text.parquet",
        validation=[],
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows=f"{FORECAST_TEST}.parquet",
        classes=f"{FORECAST_TEST}_classes.parquet",
        confusions=f"{FORECAST_TEST}_confusions.parquet",
    log:
        "logs/test_forecast_adapter/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/test_forecast_adapter/{model}/{method}/{dataset}.tsv"
    params:
        command="adapter --selections",
    message:
        "Testing {wildcards.model} with {wildcards.method} on {wildcards.dataset}"


use rule test_forecast_adapter as test_forecast_probe with:
    input:
        selections=lambda wildcards: list_selections(
            wildcards.model, wildcards.method, [wildcards.dataset]
        ),
        manifests="results/datasets/{dataset}/dataset.json",
        images=get_features("test"),
        texts=[],
        validation=[],
        script=local("workflow_scripts/evaluate.py"),
    log:
        "logs/test_forecast_probe/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/test_forecast_probe/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method=one_of(PROBES),
    params:
        command="probe --selections",
        texts="",
    message:
        "Testing {wildcards.model} with {wildcards.method} on {wildcards.dataset}"


use rule test_forecast_adapter as test_forecast_zero_shot with:
    input:
        selections=[],
        manifests="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/test.parquet",
        texts="results/embeddings/{model}/{dataset}/text.parquet",
        validation=[],
        script=local("workflow_scripts/evaluate.py"),
    log:
        "logs/test_forecast_zero_shot/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/test_forecast_zero_shot/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method="zero_shot",
    params:
        command="zero-shot --model {model}",
    message:
        "Testing {wildcards.model} zero-shot on {wildcards.dataset}"


rule forecast_datasets:
    input:
        measures=list_measures(STUDY["forecast"]["datasets"], FORECAST_MODELS),
        rehearsals=list_rehearsals(STUDY["forecast"]["datasets"], FORECAST_MODELS),
        tests=list_forecast_tests(),
        notes=list_notes(STUDY["forecast"]["datasets"]),
        pilots=list_pilots(STUDY["forecast"]["datasets"]),
        tasks=(
            by_content(Path(STUDY["forecast"]["study"], "analysis/tasks.parquet"))
            if "study" in STUDY["forecast"]
            else "results/analysis/tasks.parquet"
        ),
        script=local("workflow_scripts/forecast.py"),
    output:
        **{name: f"results/forecast/{name}.parquet" for name in FORECAST_TABLE_NAMES},
        forecasts_csv=report(
            "results/forecast/forecasts.csv",
            caption="captions/forecasts.rst",
            category="Tables",
            labels={"table": "forecasts"},
        ),
        csv=expand("results/forecast/{name}.csv", name=FORECAST_TABLE_NAMES[1:]),
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
        other_study=get_other_study_digest(),
        code=[code_digest("forecast.forecast"), code_digest("forecast.text")],
        study=subpath(input.tasks, parent=True),
        folder=subpath(output.forecasts, parent=True),
    message:
        "Forecasting accuracy and forgetting for each model and method"
    shell:
        "python {input.script:q} --study {params.study:q} --measures {input.measures:q} "
        "--rehearsals {input.rehearsals:q} --tests {input.tests:q} "
        "--pilots {input.pilots:q} --notes {input.notes:q} "
        "--weight {params.weight} --output {params.folder:q} 2>&1 | tee {log:q}"
