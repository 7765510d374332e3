rule embed_images:
    input:
        # The manifest holds the digest of all rows, so a rerun depends on it and not on the splits.
        manifest="results/datasets/{dataset}/dataset.json",
        splits=ancient(
            expand("results/datasets/{{dataset}}/{split}.parquet", split=["train", "val", "test"])
        ),
        model=get_model_files,
        script=local("workflow_scripts/embed_images.py"),
    output:
        train="results/embeddings/{model}/{dataset}/train.parquet",
        hidden="results/embeddings/{model}/{dataset}/train_hidden.parquet",
        val="results/embeddings/{model}/{dataset}/val.parquet",
        test="results/embeddings/{model}/{dataset}/test.parquet",
        # The dataset's own captions are embedded here too, because the model is loaded already.
        own_text="results/embeddings/{model}/{dataset}/own_text.parquet",
    log:
        "logs/embed_images/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/embed_images/{model}/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(name for name in DATASET_ENTRIES if name not in SHARDED_DATASETS),
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory_by_size(copies=2),
        runtime=get_encoding_minutes,
        encode_batch_size=get_encode_batch_size,
    params:
        spec=get_model_spec,
        files=get_model_digest,
        code=code_digest("encoders.encode"),
        dataset=subpath(input.manifest, parent=True),
        prepared="results/prepared",
        folder=subpath(output.test, parent=True),
        options="",
    message:
        "Embedding the images of {wildcards.dataset} with {wildcards.model}"
    shell:
        "python {input.script:q} --model-spec {params.spec:q} --dataset {params.dataset:q} "
        "--prepared {params.prepared:q} --output {params.folder:q} {params.options} "
        "--batch-size {resources.encode_batch_size} 2>&1 | tee {log:q}"


# A dataset with `shards: n` is embedded by n jobs. Their files are deleted once joined.
use rule embed_images as embed_shard with:
    output:
        train=temp("results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/train.parquet"),
        hidden=temp(
            "results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/train_hidden.parquet"
        ),
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
        dataset=one_of(SHARDED_DATASETS),
        shard=r"\d+",
        shards=r"\d+",
    params:
        options=lambda wildcards: f"--shard {wildcards.shard} {wildcards.shards}",
    message:
        "Embedding shard {wildcards.shard}-{wildcards.shards} of {wildcards.dataset} "
        "with {wildcards.model}"


rule join_shards:
    input:
        shards=get_shards,
        script=local("workflow_scripts/join_shards.py"),
    output:
        train="results/embeddings/{model}/{dataset}/train.parquet",
        hidden="results/embeddings/{model}/{dataset}/train_hidden.parquet",
        val="results/embeddings/{model}/{dataset}/val.parquet",
        test="results/embeddings/{model}/{dataset}/test.parquet",
        own_text="results/embeddings/{model}/{dataset}/own_text.parquet",
    log:
        "logs/join_shards/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/join_shards/{model}/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED_DATASETS),
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(8000),
        runtime=per_attempt(60),
    params:
        code=code_digest("encoders.shards"),
        shards=lambda wildcards, input: list(
            dict.fromkeys(str(Path(path).parent) for path in input.shards)
        ),
        folder=subpath(output.test, parent=True),
    message:
        "Joining the embeddings of {wildcards.dataset} by {wildcards.model}"
    shell:
        "python {input.script:q} --shards {params.shards:q} --output {params.folder:q} "
        "2>&1 | tee {log:q}"


use rule embed_images as embed_shifted_test with:
    input:
        manifest="results/datasets/{dataset}/shifted/{shift}/dataset.json",
        splits=ancient("results/datasets/{dataset}/shifted/{shift}/test.parquet"),
        model=get_model_files,
        script=local("workflow_scripts/embed_images.py"),
    output:
        test="results/embeddings/{model}/{dataset}/shifted/{shift}/test.parquet",
    log:
        "logs/embed_shifted_test/{model}/{dataset}/{shift}.log",
    benchmark:
        "logs/benchmarks/embed_shifted_test/{model}/{dataset}/{shift}.tsv"
    wildcard_constraints:
        dataset=one_of(DATASETS),
    message:
        "Embedding the shifted test {wildcards.shift} of {wildcards.dataset} with {wildcards.model}"


rule embed_captions:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        own=get_dataset_captions,
        captions=get_caption_file,
        model=get_model_files,
        script=local("workflow_scripts/embed_captions.py"),
    output:
        text="results/embeddings/{model}/{dataset}/text.parquet",
    log:
        "logs/embed_captions/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/embed_captions/{model}/{dataset}.tsv"
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        mem_mb=memory_by_size(copies=2),
        runtime=per_attempt(30),
    params:
        spec=get_model_spec,
        files=get_model_digest,
        caption=get_caption,
        caption_digest=get_caption_digest,
        code=code_digest("encoders.encode"),
        dataset=subpath(input.manifest, parent=True),
    message:
        "Embedding the captions of {wildcards.dataset} with {wildcards.model}"
    shell:
        "printf %s {params.caption:q} | "
        "python {input.script:q} --model-spec {params.spec:q} --caption - "
        "--own {input.own:q} --dataset {params.dataset:q} --output {output.text:q} "
        "2>&1 | tee {log:q}"
