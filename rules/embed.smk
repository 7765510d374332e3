rule embed_images:
    input:
        # Content decides: the manifest holds the digest of all rows.
        manifest="results/datasets/{dataset}/dataset.json",
        splits=ancient(
            expand("results/datasets/{{dataset}}/{split}.parquet", split=["train", "val", "test"])
        ),
        model=model_files,
        script=local("workflow_scripts/embed_images.py"),
    output:
        train="results/embeddings/{model}/{dataset}/train.parquet",
        val="results/embeddings/{model}/{dataset}/val.parquet",
        test="results/embeddings/{model}/{dataset}/test.parquet",
        # The captions that the dataset comes with, while the model is at hand.
        own_text="results/embeddings/{model}/{dataset}/own_text.parquet",
    log:
        "logs/embed_images/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/embed_images/{model}/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of([dataset for dataset in ENTRIES if dataset not in SHARDED]),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory_for(copies=2),
        runtime=time_to_encode,
    params:
        spec=model_spec,
        code=code_digest("encoders.encode"),
        dataset=subpath(input.manifest, parent=True),
        prepared="results/prepared",
        folder=subpath(output.test, parent=True),
        shard="",
    shell:
        "python {input.script} --model-spec {params.spec:q} --dataset {params.dataset} "
        "--prepared {params.prepared} --output {params.folder} {params.shard} 2>&1 | tee {log}"


# A dataset with `shards: n` is embedded by n jobs. Their files are joined and not kept.
use rule embed_images as embed_shard with:
    output:
        train=temp("results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/train.parquet"),
        val=temp("results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/val.parquet"),
        test=temp("results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/test.parquet"),
        own_text=temp(
            "results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/own_text.parquet"
        ),
    log:
        "logs/embed_shard/{model}/{dataset}/{shard}-{shards}.log",
    benchmark:
        "logs/benchmarks/embed_shard/{model}/{dataset}/{shard}-{shards}.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED),
        shard=r"\d+",
        shards=r"\d+",
    params:
        shard=lambda wildcards: f"--shard {wildcards.shard} {wildcards.shards}",


rule join_shards:
    input:
        shards=shard_files,
        script=local("workflow_scripts/join_shards.py"),
    output:
        train="results/embeddings/{model}/{dataset}/train.parquet",
        val="results/embeddings/{model}/{dataset}/val.parquet",
        test="results/embeddings/{model}/{dataset}/test.parquet",
        own_text="results/embeddings/{model}/{dataset}/own_text.parquet",
    log:
        "logs/join_shards/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/join_shards/{model}/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED),
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=code_digest("encoders.shards"),
        shards=lambda wildcards, input: list(
            dict.fromkeys(str(Path(path).parent) for path in input.shards)
        ),
        folder=subpath(output.test, parent=True),
    shell:
        "python {input.script} --shards {params.shards} --output {params.folder} 2>&1 | tee {log}"


use rule embed_images as embed_shifted_test with:
    input:
        manifest="results/datasets/{dataset}/shifted/{shift}/dataset.json",
        splits=ancient("results/datasets/{dataset}/shifted/{shift}/test.parquet"),
        model=model_files,
        script=local("workflow_scripts/embed_images.py"),
    output:
        test="results/embeddings/{model}/{dataset}/shifted/{shift}/test.parquet",
    log:
        "logs/embed_shifted_test/{model}/{dataset}/{shift}.log",
    benchmark:
        "logs/benchmarks/embed_shifted_test/{model}/{dataset}/{shift}.tsv"
    wildcard_constraints:
        dataset=one_of(DATASETS),


rule embed_captions:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        own=lambda wildcards: (
            []
            if "caption" in ENTRIES[wildcards.dataset]
            else f"results/embeddings/{wildcards.model}/{wildcards.dataset}/own_text.parquet"
        ),
        model=model_files,
        script=local("workflow_scripts/embed_captions.py"),
    output:
        text="results/embeddings/{model}/{dataset}/text.parquet",
    log:
        "logs/embed_captions/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/embed_captions/{model}/{dataset}.tsv"
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        mem_mb=memory_for(copies=2),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        spec=model_spec,
        template=lambda wildcards: as_json(ENTRIES[wildcards.dataset].get("caption")),
        code=code_digest("encoders.encode"),
        dataset=subpath(input.manifest, parent=True),
    shell:
        "python {input.script} --model-spec {params.spec:q} --template {params.template:q} "
        "--own {input.own} --dataset {params.dataset} --output {output.text} 2>&1 | tee {log}"
