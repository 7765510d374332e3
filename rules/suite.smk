# Rebuild the files under resources/mini from their sources, into results/resources/mini. No study
# depends on these rules. `make suite` runs them and reports whether each file equals the bundled
# one. They need npm, apt-get and the network.

SUITE_SEED = 0  # of the bundled files, whatever the study's seed is
BUNDLES = {  # name of the task -> library module with its function bundle_{name}
    **dict.fromkeys(["mnist", "fashion_mnist", "digits"], "suite.bundles"),
    **dict.fromkeys(["shapes", "colours", "counts", "textures", "orientation"], "suite.drawn"),
    **dict.fromkeys(
        ["emoji", "emoji_artists", "flags", "flags_artists", "letters", "stamps"],
        "suite.artwork",
    ),
}
ENCODERS = ["clip", "siglip", "coca", "eva02"]


rule suite_data:
    input:
        bundles=expand("results/resources/mini/{bundle}.parquet", bundle=BUNDLES),
        index="results/resources/mini/corpus_index.parquet",
        script="workflow_scripts/suite.py",
    log:
        "logs/suite_data.log",
    conda:
        "../envs/foretune.yaml"
    message:
        "Comparing the rebuilt tasks with the bundled ones"
    shell:
        "python {input.script:q} compare-data --rebuilt results/resources/mini "
        "--bundled resources/mini 2>&1 | tee {log:q}"


rule suite:
    input:
        data=rules.suite_data.input.bundles,
        index="results/resources/mini/corpus_index.parquet",
        weights=expand(
            "results/resources/mini/{encoder}/open_clip_model.safetensors", encoder=ENCODERS
        ),
        script="workflow_scripts/suite.py",
    log:
        "logs/suite.log",
    conda:
        "../envs/foretune.yaml"
    message:
        "Comparing the rebuilt tasks and encoders with the bundled ones"
    shell:
        "(python {input.script:q} compare-data --rebuilt results/resources/mini "
        "--bundled resources/mini && "
        "python {input.script:q} compare-encoders --rebuilt results/resources/mini "
        "--bundled resources/mini) 2>&1 | tee {log:q}"


rule fetch_debian_packages:
    input:
        packages="resources/mini/tasks/debian.txt",
    output:
        folder=directory("results/resources/tasks/debian"),
    log:
        "logs/fetch_debian_packages.log",
    benchmark:
        "logs/benchmarks/fetch_debian_packages.tsv"
    conda:
        "../envs/foretune.yaml"
    message:
        "Downloading the Debian packages of the bundled tasks"
    shell:
        "(packages=$(cat {input.packages:q}) && mkdir -p {output.folder:q} && "
        "cd {output.folder:q} && "
        "apt-get download $packages && for package in *.deb; do dpkg -x $package . || exit 1; "
        "done && rm *.deb) > {log:q} 2>&1"


rule fetch_npm_packages:
    input:
        packages=lambda wildcards: (
            "resources/mini/package.json"
            if wildcards.use == "corpus"
            else "resources/mini/tasks/package.json"
        ),
    output:
        folder=directory("results/resources/{use}/npm"),
    log:
        "logs/fetch_npm_packages/{use}.log",
    benchmark:
        "logs/benchmarks/fetch_npm_packages/{use}.tsv"
    wildcard_constraints:
        use="corpus|tasks",
    conda:
        "../envs/foretune.yaml"
    message:
        "Downloading the npm packages of the {wildcards.use}"
    shell:
        "(mkdir -p {output.folder:q} && cp {input.packages:q} {output.folder:q} && "
        "cd {output.folder:q} && npm install --no-audit --no-fund) > {log:q} 2>&1"


rule build_bundle:
    input:
        debian="results/resources/tasks/debian",
        npm="results/resources/tasks/npm",
        script="workflow_scripts/build_bundle.py",
    output:
        bundle="results/resources/mini/{bundle}.parquet",
    log:
        "logs/build_bundle/{bundle}.log",
    benchmark:
        "logs/benchmarks/build_bundle/{bundle}.tsv"
    wildcard_constraints:
        bundle=one_of(BUNDLES),
    conda:
        "../envs/foretune.yaml"
    params:
        module=lambda wildcards: BUNDLES[wildcards.bundle],
        code=lambda wildcards: code_digest(BUNDLES[wildcards.bundle]),
        seed=SUITE_SEED,
        sources=subpath(input.npm, parent=True),
    message:
        "Rebuilding the task {wildcards.bundle}"
    shell:
        "python {input.script:q} --name {wildcards.bundle:q} --module {params.module:q} "
        "--seed {params.seed} --sources {params.sources:q} --output {output.bundle:q} "
        "2>&1 | tee {log:q}"


rule render_corpus:
    input:
        packages="results/resources/corpus/npm",
        script="workflow_scripts/pretrain.py",
    output:
        corpus="results/resources/corpus/corpus.parquet",
    log:
        "logs/render_corpus.log",
    benchmark:
        "logs/benchmarks/render_corpus.tsv"
    conda:
        "../envs/foretune.yaml"
    params:
        seed=SUITE_SEED,
        code=code_digest("suite.corpus"),
    message:
        "Rendering the pretraining corpus"
    shell:
        "python {input.script:q} corpus --packages {input.packages:q}/node_modules "
        "--seed {params.seed} --output {output.corpus:q} 2>&1 | tee {log:q}"


rule index_corpus:
    input:
        corpus="results/resources/corpus/corpus.parquet",
        script="workflow_scripts/suite.py",
    output:
        index="results/resources/mini/corpus_index.parquet",
    log:
        "logs/index_corpus.log",
    benchmark:
        "logs/benchmarks/index_corpus.tsv"
    conda:
        "../envs/foretune.yaml"
    params:
        code=code_digest("suite.leak_check"),
    message:
        "Indexing the pretraining corpus"
    shell:
        "python {input.script:q} index --corpus {input.corpus:q} --output {output.index:q} "
        "2>&1 | tee {log:q}"


rule pretrain_encoder:
    input:
        corpus="results/resources/corpus/corpus.parquet",
        architecture="resources/mini/{encoder}/open_clip_config.json",
        script="workflow_scripts/pretrain.py",
    output:
        weights="results/resources/mini/{encoder}/open_clip_model.safetensors",
        merges="results/resources/mini/{encoder}/merges.txt.gz",
        history="results/resources/mini/{encoder}/pretraining.json",
    log:
        "logs/pretrain_encoder/{encoder}.log",
    benchmark:
        "logs/benchmarks/pretrain_encoder/{encoder}.tsv"
    wildcard_constraints:
        encoder=one_of(ENCODERS),
    conda:
        "../envs/foretune.yaml"
    # Two encoders at a time with a thread each are faster than one after the other with two.
    threads: 1
    resources:
        mem_mb=4000,
    params:
        seed=SUITE_SEED,
        code=code_digest("suite.pretrain"),
        folder=subpath(output.weights, parent=True),
    message:
        "Pretraining the encoder {wildcards.encoder}"
    shell:
        "python {input.script:q} encoder --corpus {input.corpus:q} "
        "--architecture {input.architecture:q} --seed {params.seed} "
        "--output {params.folder:q} 2>&1 | tee {log:q}"
