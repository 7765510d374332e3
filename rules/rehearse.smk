# What probes on the cached embeddings reach, by cross-validation on the training images.
rule rehearse_task:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/train.parquet",
        hidden="results/embeddings/{model}/{dataset}/train_hidden.parquet",
        text="results/embeddings/{model}/{dataset}/text.parquet",
        script=local("workflow_scripts/rehearse.py"),
    output:
        rehearsal="results/rehearsals/{model}/{dataset}.json",
        images="results/rehearsals/{model}/{dataset}_images.parquet",
    log:
        "logs/rehearse_task/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/rehearse_task/{model}/{dataset}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        seed=STUDY["seed"],
        code=code_digest("forecast.rehearsal"),
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.images, parent=True),
    message:
        "Rehearsing {wildcards.dataset} on the embeddings of {wildcards.model}"
    shell:
        "python {input.script:q} --model {wildcards.model:q} --dataset {params.dataset:q} "
        "--embeddings {params.embeddings:q} --seed {params.seed} --output {output.rehearsal:q} "
        "--images {output.images:q} 2>&1 | tee {log:q}"
