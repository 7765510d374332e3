rule prepare_dataset:
    input:
        source=source_file,
        script=local("workflow_scripts/prepare_dataset.py"),
    output:
        manifest="results/datasets/{dataset}/dataset.json",
        train="results/datasets/{dataset}/train.parquet",
        val="results/datasets/{dataset}/val.parquet",
        test="results/datasets/{dataset}/test.parquet",
    log:
        "logs/prepare_dataset/{dataset}.log",
    benchmark:
        "logs/benchmarks/prepare_dataset/{dataset}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_for(),
        # How many images there are is not known yet; ImageNet's take a core hours.
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        spec=dataset_spec,
        listing=folder_listing,
        seed=STUDY["seed"],
        code=code_digest("data.prepare"),
        folder=subpath(output.manifest, parent=True),
    shell:
        "python {input.script} --name {wildcards.dataset} --spec {params.spec:q} "
        "--seed {params.seed} --output {params.folder} 2>&1 | tee {log}"


# The parent's manifest tells its classes; its images are not read.
rule prepare_shifted_test:
    input:
        parent="results/datasets/{dataset}/dataset.json",
        source=source_file,
        script=local("workflow_scripts/prepare_shifted_test.py"),
    output:
        manifest="results/datasets/{dataset}/shifted/{shift}/dataset.json",
        test="results/datasets/{dataset}/shifted/{shift}/test.parquet",
    log:
        "logs/prepare_shifted_test/{dataset}/{shift}.log",
    benchmark:
        "logs/benchmarks/prepare_shifted_test/{dataset}/{shift}.tsv"
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_for(),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        spec=dataset_spec,
        listing=folder_listing,
        code=code_digest("data.prepare"),
        parent=subpath(input.parent, parent=True),
        folder=subpath(output.manifest, parent=True),
    shell:
        "python {input.script} --shift {wildcards.shift} --spec {params.spec:q} "
        "--parent {params.parent} --output {params.folder} 2>&1 | tee {log}"
