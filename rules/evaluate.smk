# Zero-shot models, adapters and probes are tested on cached embeddings, by the same command.
rule evaluate_adapter:
    input:
        selections=get_selections,
        trained_weights=ancient(get_trained_weights),
        manifests=list_manifests(),
        images=expand("results/embeddings/{{model}}/{test}/test.parquet", test=TESTS),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TESTS.values()),
        validation=list_validation("results/embeddings/{{model}}/{dataset}"),
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows="results/evaluations/{model}/{method}.parquet",
        classes="results/evaluations/{model}/{method}_classes.parquet",
        confusions="results/evaluations/{model}/{method}_confusions.parquet",
    log:
        "logs/evaluate_adapter/{model}/{method}.log",
    benchmark:
        "logs/benchmarks/evaluate_adapter/{model}/{method}.tsv"
    wildcard_constraints:
        method=one_of(name for name in FITTED_METHODS if name not in PROBES),
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_by_size(),
        runtime=per_attempt(30),
    params:
        command=get_adapter_command,
        texts="--texts",
        code=code_digest("evaluation.on_embeddings"),
        predictions="results/predictions",
    message:
        "Testing {wildcards.model} with each adapter of {wildcards.method} on every dataset"
    shell:
        "python {input.script:q} {params.command} {input.selections:q} "
        "--manifests {input.manifests:q} --images {input.images:q} {params.texts} {input.texts:q} "
        "--validation {input.validation:q} --predictions {params.predictions:q} "
        "--output {output.rows:q} --classes {output.classes:q} --confusions {output.confusions:q} "
        "2>&1 | tee {log:q}"


# A probe has a head for the classes of its own task, and needs no captions.
use rule evaluate_adapter as evaluate_probe with:
    input:
        selections=get_selections,
        trained_weights=ancient(get_trained_weights),
        manifests=list_manifests(),
        images=get_features("test", TESTS),
        texts=[],
        validation=get_features("val", VALIDATED),
        script=local("workflow_scripts/evaluate.py"),
    log:
        "logs/evaluate_probe/{model}/{method}.log",
    benchmark:
        "logs/benchmarks/evaluate_probe/{model}/{method}.tsv"
    wildcard_constraints:
        method=one_of(PROBES),
    params:
        command="probe --selections",
        texts="",
    message:
        "Testing each linear probe on {wildcards.model} on its own dataset"


use rule evaluate_adapter as evaluate_zero_shot with:
    input:
        selections=[],
        manifests=list_manifests(),
        images=expand("results/embeddings/{{model}}/{test}/test.parquet", test=TESTS),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TESTS.values()),
        validation=list_validation("results/embeddings/{{model}}/{dataset}"),
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows="results/evaluations/{model}/zero_shot.parquet",
        classes="results/evaluations/{model}/zero_shot_classes.parquet",
        confusions="results/evaluations/{model}/zero_shot_confusions.parquet",
    log:
        "logs/evaluate_zero_shot/{model}.log",
    benchmark:
        "logs/benchmarks/evaluate_zero_shot/{model}.tsv"
    params:
        command="zero-shot --model {model}",
    message:
        "Testing {wildcards.model} zero-shot on every dataset"


# One job tests all models that a method fine-tuned, so that each test's images are prepared once.
# The output is not update(...), which loses rows without notice after a failure. It is assembled
# from predictions that are kept by digest, so that a new dataset costs its row and column only.
rule evaluate_model:
    input:
        selections=get_selections,
        trained_weights=ancient(get_trained_weights),
        manifests=list_manifests(),
        tests=ancient(expand("results/datasets/{test}/test.parquet", test=TESTS)),
        train=ancient(expand("results/datasets/{dataset}/train.parquet", dataset=DATASETS)),
        val=ancient(list_validation("results/datasets/{dataset}")),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TESTS.values()),
        trained=expand(
            "results/embeddings/{{model}}/{dataset}/{file}.parquet",
            dataset=DATASETS,
            file=["train", "text"],
        ),
        model=get_model_files,
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows="results/evaluations/{model}/{method}.parquet",
        classes="results/evaluations/{model}/{method}_classes.parquet",
        confusions="results/evaluations/{model}/{method}_confusions.parquet",
        drift="results/evaluations/{model}/{method}_drift.parquet",
    log:
        "logs/evaluate_model/{model}/{method}.log",
    benchmark:
        "logs/benchmarks/evaluate_model/{model}/{method}.tsv"
    wildcard_constraints:
        method=one_of(FINETUNED_METHODS),
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory_by_size(copies=3),
        runtime=get_evaluation_minutes,
        encode_batch_size=get_encode_batch_size,
    params:
        spec=get_model_spec,
        files=get_model_digest,
        code=code_digest("evaluation.finetuned"),
        predictions="results/predictions",
        embeddings=lambda wildcards, input: str(Path(input.trained[0]).parents[1]),
        prepared="results/prepared",
        wise_ft=lambda wildcards: STUDY["methods"][wildcards.method]["wise_ft"],
        scaling="--temperature-scaling" if STUDY["temperature_scaling"] else "",
    message:
        "Testing {wildcards.model} as fine-tuned by {wildcards.method} on every dataset"
    shell:
        "python {input.script:q} model --selections {input.selections:q} "
        "--model-spec {params.spec:q} --wise-ft {params.wise_ft:q} --manifests {input.manifests:q} "
        "--texts {input.texts:q} --embeddings {params.embeddings:q} --prepared {params.prepared:q} "
        "--predictions {params.predictions:q} --code {params.code:q} --output {output.rows:q} "
        "--classes {output.classes:q} --confusions {output.confusions:q} --drift {output.drift:q} "
        "--batch-size {resources.encode_batch_size} {params.scaling} 2>&1 | tee {log:q}"
