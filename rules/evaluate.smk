rule evaluate_zero_shot:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/test.parquet",
        text="results/embeddings/{model}/{dataset}/text.parquet",
        script="workflow_scripts/evaluate.py",
    output:
        rows="results/evaluations/{model}/zero_shot/{dataset}.parquet",
    log:
        "logs/evaluate_zero_shot/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/evaluate_zero_shot/{model}/{dataset}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("evaluate"),
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.images, parent=True),
    shell:
        "python {input.script} zero-shot --model {wildcards.model} --dataset {params.dataset} "
        "--embeddings {params.embeddings} --output {output.rows} 2>&1 | tee {log}"


rule evaluate_probe:
    input:
        best="results/selected/{model}/{method}/{dataset}.json",
        manifest="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/test.parquet",
        text="results/embeddings/{model}/{dataset}/text.parquet",
        script="workflow_scripts/evaluate.py",
    output:
        rows="results/evaluations/{model}/{method}/{dataset}.parquet",
    log:
        "logs/evaluate_probe/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/evaluate_probe/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method=one_of(PROBED),
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("evaluate"),
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.images, parent=True),
    shell:
        "python {input.script} probe --best {input.best} --dataset {params.dataset} "
        "--embeddings {params.embeddings} --output {output.rows} 2>&1 | tee {log}"


# Not update(...): after a failure that loses rows silently. A normal output, put together from
# predictions that are kept by digest, costs a new dataset's column and no more.
rule evaluate_model:
    input:
        best="results/selected/{model}/{method}/{dataset}.json",
        manifests=MANIFESTS,
        tests=ancient(expand("results/datasets/{other}/test.parquet", other=DATASETS)),
        texts=expand("results/embeddings/{{model}}/{other}/text.parquet", other=DATASETS),
        model=model_files,
        script="workflow_scripts/evaluate.py",
    output:
        rows="results/evaluations/{model}/{method}/{dataset}.parquet",
    log:
        "logs/evaluate_model/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/evaluate_model/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method=one_of(TUNED),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        spec=model_spec,
        code=code_digest("evaluate_model"),
        datasets=expand("results/datasets/{other}", other=DATASETS),
        predictions="results/predictions",
    shell:
        "python {input.script} model --best {input.best} --model-spec {params.spec:q} "
        "--datasets {params.datasets} --texts {input.texts} --predictions {params.predictions} "
        "--code {params.code} --output {output.rows} 2>&1 | tee {log}"
