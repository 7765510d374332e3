rule evaluate_zero_shot:
    input:
        manifests=MANIFESTS,
        images=expand("results/embeddings/{{model}}/{test}/test.parquet", test=TESTS),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TEST_PARENTS),
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows="results/evaluations/{model}/zero_shot.parquet",
        classes="results/evaluations/{model}/zero_shot_classes.parquet",
        confusions="results/evaluations/{model}/zero_shot_confusions.parquet",
    log:
        "logs/evaluate_zero_shot/{model}.log",
    benchmark:
        "logs/benchmarks/evaluate_zero_shot/{model}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_for(),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("evaluation.on_embeddings"),
        predictions="results/predictions",
    shell:
        "python {input.script} zero-shot --model {wildcards.model} --manifests {input.manifests} "
        "--images {input.images} --texts {input.texts} --predictions {params.predictions} "
        "--output {output.rows} --classes {output.classes} --confusions {output.confusions} 2>&1 | tee {log}"


rule evaluate_probe:
    input:
        selections=selections_of,
        trained_weights=ancient(get_trained_weights),
        manifests=MANIFESTS,
        images=expand("results/embeddings/{{model}}/{test}/test.parquet", test=TESTS),
        script=local("workflow_scripts/evaluate.py"),
    output:
        rows="results/evaluations/{model}/{method}.parquet",
        classes="results/evaluations/{model}/{method}_classes.parquet",
        confusions="results/evaluations/{model}/{method}_confusions.parquet",
    log:
        "logs/evaluate_probe/{model}/{method}.log",
    benchmark:
        "logs/benchmarks/evaluate_probe/{model}/{method}.tsv"
    wildcard_constraints:
        method=one_of(PROBE_METHODS),
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_for(),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("evaluation.on_embeddings"),
        predictions="results/predictions",
    shell:
        "python {input.script} probe --selections {input.selections} --manifests {input.manifests} "
        "--images {input.images} --predictions {params.predictions} --output {output.rows} "
        "--classes {output.classes} --confusions {output.confusions} 2>&1 | tee {log}"


rule evaluate_adapter:
    input:
        selections=selections_of,
        trained_weights=ancient(get_trained_weights),
        manifests=MANIFESTS,
        images=expand("results/embeddings/{{model}}/{test}/test.parquet", test=TESTS),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TEST_PARENTS),
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
        method=one_of([method for method in FITTED if method not in PROBE_METHODS]),
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_for(),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("evaluation.on_embeddings"),
        predictions="results/predictions",
    shell:
        "python {input.script} adapter --selections {input.selections} --manifests {input.manifests} "
        "--images {input.images} --texts {input.texts} --predictions {params.predictions} "
        "--output {output.rows} --classes {output.classes} --confusions {output.confusions} 2>&1 | tee {log}"


# Not update(...): after a failure that loses rows silently. A normal output, put together from
# predictions that are kept by digest, costs a new dataset's row and column and no more. One job
# has all checkpoints of a method, for which each test's images are prepared once.
rule evaluate_model:
    input:
        selections=selections_of,
        trained_weights=ancient(get_trained_weights),
        manifests=MANIFESTS,
        tests=ancient(expand("results/datasets/{test}/test.parquet", test=TESTS)),
        train=ancient(expand("results/datasets/{dataset}/train.parquet", dataset=DATASETS)),
        texts=expand("results/embeddings/{{model}}/{dataset}/text.parquet", dataset=TEST_PARENTS),
        trained=expand(
            "results/embeddings/{{model}}/{dataset}/{file}.parquet",
            dataset=DATASETS,
            file=["train", "text"],
        ),
        model=model_files,
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
        method=one_of(TUNED),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory_for(copies=3),
        runtime=time_to_evaluate,
    params:
        spec=model_spec,
        code=code_digest("evaluation.finetuned"),
        predictions="results/predictions",
        embeddings=lambda wildcards, input: str(Path(input.trained[0]).parents[1]),
        prepared="results/prepared",
        wise_ft=lambda wildcards: STUDY["methods"][wildcards.method]["wise_ft"],
    shell:
        "python {input.script} model --selections {input.selections} "
        "--model-spec {params.spec:q} --wise-ft {params.wise_ft} --manifests {input.manifests} "
        "--texts {input.texts} --embeddings {params.embeddings} --prepared {params.prepared} --predictions {params.predictions} --code {params.code} --output {output.rows} "
        "--classes {output.classes} --confusions {output.confusions} --drift {output.drift} 2>&1 | tee {log}"
