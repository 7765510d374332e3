rule measure_task:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/train.parquet",
        text="results/embeddings/{model}/{dataset}/text.parquet",
        # Caption embeddings by the models that EMMS takes its labels from.
        sources=expand(
            "results/embeddings/{source}/{{dataset}}/text.parquet",
            source=STUDY["measures"]["emms_sources"],
        ),
        script=local("workflow_scripts/measure.py"),
    output:
        measures="results/measures/{model}/{dataset}.json",
    log:
        "logs/measure_task/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/measure_task/{model}/{dataset}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        options=get_measure_options,
        seed=STUDY["seed"],
        code=[code_digest("measures.compute"), code_digest("encoders.streams")],
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.images, parent=True),
    message:
        "Measuring {wildcards.dataset} in the embeddings of {wildcards.model}"
    shell:
        "python {input.script:q} --model {wildcards.model:q} --dataset {params.dataset:q} "
        "--embeddings {params.embeddings:q} --emms-sources {input.sources:q} "
        "--options {params.options:q} --seed {params.seed} --output {output.measures:q} "
        "2>&1 | tee {log:q}"


# Embeddings that were computed elsewhere have no model or dataset here; nothing is trained on them.
rule measure_embeddings:
    input:
        unpack(get_external_embeddings),
        script=local("workflow_scripts/measure_embeddings.py"),
    output:
        measures="results/measures/{embedding}.json",
    log:
        "logs/measure_embeddings/{embedding}.log",
    benchmark:
        "logs/benchmarks/measure_embeddings/{embedding}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        files=get_external_digest,
        labels=lambda wildcards, input: "--labels" if input.labels else "",
        options=get_measure_options,
        seed=STUDY["seed"],
        code=[code_digest("measures.compute"), code_digest("encoders.streams")],
    message:
        "Measuring the embeddings {wildcards.embedding}"
    shell:
        "python {input.script:q} --name {wildcards.embedding:q} --images {input.images:q} "
        "--texts {input.texts:q} {params.labels} {input.labels:q} --options {params.options:q} "
        "--seed {params.seed} --output {output.measures:q} 2>&1 | tee {log:q}"
