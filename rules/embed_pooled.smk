# What the image towers pool, before their projection. Jobs of their own encode the images again if
# a method has `features: pooled`: as further outputs of the other jobs, they would repeat all that
# rests on the embeddings once a method asks for them.


use rule embed_images as embed_pooled with:
    output:
        train="results/embeddings/{model}/{dataset}/pooled/train.parquet",
        val="results/embeddings/{model}/{dataset}/pooled/val.parquet",
        test="results/embeddings/{model}/{dataset}/pooled/test.parquet",
    log:
        "logs/embed_pooled/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/embed_pooled/{model}/{dataset}.tsv"
    priority: 0
    params:
        options="--pooled",
    message:
        "Pooling the images of {wildcards.dataset} with {wildcards.model}"


use rule embed_shard as embed_pooled_shard with:
    output:
        train=temp(
            "results/embeddings/{model}/{dataset}/pooled/shards/{shard}-{shards}/train.parquet"
        ),
        val=temp("results/embeddings/{model}/{dataset}/pooled/shards/{shard}-{shards}/val.parquet"),
        test=temp(
            "results/embeddings/{model}/{dataset}/pooled/shards/{shard}-{shards}/test.parquet"
        ),
    log:
        "logs/embed_pooled_shard/{model}/{dataset}/{shard}-{shards}.log",
    benchmark:
        "logs/benchmarks/embed_pooled_shard/{model}/{dataset}/{shard}-{shards}.tsv"
    priority: 0
    params:
        options=lambda wildcards: f"--pooled --shard {wildcards.shard} {wildcards.shards}",
    message:
        "Pooling shard {wildcards.shard}-{wildcards.shards} of {wildcards.dataset} "
        "with {wildcards.model}"


use rule join_shards as join_pooled_shards with:
    input:
        shards=get_pooled_shards,
        script=local("workflow_scripts/join_shards.py"),
    output:
        train="results/embeddings/{model}/{dataset}/pooled/train.parquet",
        val="results/embeddings/{model}/{dataset}/pooled/val.parquet",
        test="results/embeddings/{model}/{dataset}/pooled/test.parquet",
    log:
        "logs/join_pooled_shards/{model}/{dataset}.log",
    benchmark:
        "logs/benchmarks/join_pooled_shards/{model}/{dataset}.tsv"
    priority: 0
    message:
        "Joining the pooled outputs of {wildcards.dataset} by {wildcards.model}"


use rule embed_shifted_test as embed_pooled_shifted_test with:
    output:
        test="results/embeddings/{model}/{dataset}/shifted/{shift}/pooled/test.parquet",
    log:
        "logs/embed_pooled_shifted_test/{model}/{dataset}/{shift}.log",
    benchmark:
        "logs/benchmarks/embed_pooled_shifted_test/{model}/{dataset}/{shift}.tsv"
    priority: 0
    params:
        options="--pooled",
    message:
        "Pooling the shifted test {wildcards.shift} of {wildcards.dataset} with {wildcards.model}"
