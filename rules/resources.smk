# What is bundled under resources/mini, made again from its sources into results/resources.
# Nothing of the study depends on these rules: `make resources` and `make pretrain` run them and
# copy the result over the bundled files. They need npm, apt-get and the network.

PRETRAINING = STUDY["pretraining"]
BUNDLES = ["mnist", "fashion_mnist", "digits"]


rule resources:
    input:
        expand("results/resources/{bundle}.parquet", bundle=BUNDLES),


rule pretrained_encoder:
    input:
        "results/resources/clip/open_clip_model.safetensors",


rule unpack_fashion_mnist:
    output:
        archive=directory("results/resources/debian/dataset-fashion-mnist"),
    log:
        "logs/unpack_fashion_mnist.log",
    benchmark:
        "logs/benchmarks/unpack_fashion_mnist.tsv"
    conda:
        "../envs/foretune.yaml"
    shell:
        "(mkdir -p {output.archive} && cd {output.archive} && "
        "apt-get download dataset-fashion-mnist && dpkg -x *.deb .) > {log} 2>&1"


rule build_bundle:
    input:
        archive=lambda wildcards: (
            rules.unpack_fashion_mnist.output.archive
            if wildcards.bundle == "fashion_mnist"
            else []
        ),
        script="workflow_scripts/build_bundle.py",
    output:
        bundle="results/resources/{bundle}.parquet",
    log:
        "logs/build_bundle/{bundle}.log",
    benchmark:
        "logs/benchmarks/build_bundle/{bundle}.tsv"
    wildcard_constraints:
        bundle=one_of(BUNDLES),
    conda:
        "../envs/foretune.yaml"
    params:
        code=code_digest("bundles"),
    shell:
        "python {input.script} --name {wildcards.bundle} --archive results/resources/debian "
        "--output {output.bundle} 2>&1 | tee {log}"


rule fetch_corpus_packages:
    input:
        packages="resources/mini/package.json",
    output:
        folder=directory("results/resources/npm"),
    log:
        "logs/fetch_corpus_packages.log",
    benchmark:
        "logs/benchmarks/fetch_corpus_packages.tsv"
    conda:
        "../envs/foretune.yaml"
    shell:
        "(mkdir -p {output.folder} && cp {input.packages} {output.folder} && "
        "cd {output.folder} && npm install --no-audit --no-fund) > {log} 2>&1"


rule render_corpus:
    input:
        packages="results/resources/npm",
        script="workflow_scripts/pretrain.py",
    output:
        corpus="results/resources/corpus.parquet",
    log:
        "logs/render_corpus.log",
    benchmark:
        "logs/benchmarks/render_corpus.tsv"
    conda:
        "../envs/foretune.yaml"
    params:
        drawings=PRETRAINING["drawings"],
        seed=STUDY["seed"],
        code=code_digest("corpus"),
    shell:
        "python {input.script} corpus --packages {input.packages}/node_modules "
        "--drawings {params.drawings} --seed {params.seed} --output {output.corpus} "
        "2>&1 | tee {log}"


rule pretrain_encoder:
    input:
        corpus="results/resources/corpus.parquet",
        architecture="resources/mini/clip/open_clip_config.json",
        script="workflow_scripts/pretrain.py",
    output:
        weights="results/resources/clip/open_clip_model.safetensors",
        merges="results/resources/clip/merges.txt.gz",
        history="results/resources/clip/pretraining.json",
    log:
        "logs/pretrain_encoder.log",
    benchmark:
        "logs/benchmarks/pretrain_encoder.tsv"
    conda:
        "../envs/foretune.yaml"
    threads: 8  # or as many as there are
    resources:
        gpu=1,
    params:
        recipe=as_json({k: v for k, v in PRETRAINING.items() if k != "drawings"}),
        seed=STUDY["seed"],
        code=code_digest("pretrain"),
        folder=subpath(output.weights, parent=True),
    shell:
        "python {input.script} encoder --corpus {input.corpus} "
        "--architecture {input.architecture} --recipe {params.recipe:q} --seed {params.seed} "
        "--output {params.folder} 2>&1 | tee {log}"
