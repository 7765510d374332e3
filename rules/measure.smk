rule measure_task:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        images="results/embeddings/{model}/{dataset}/train.parquet",
        text="results/embeddings/{model}/{dataset}/text.parquet",
        script="workflow_scripts/measure.py",
    output:
        measures="results/measures/{model}/{dataset}.json",
    log:
        "logs/measure_task/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/measure_task/{model}/{dataset}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("measures"),
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.images, parent=True),
    shell:
        "python {input.script} --model {wildcards.model} --dataset {params.dataset} "
        "--embeddings {params.embeddings} --output {output.measures} 2>&1 | tee {log}"
