rule prepare_dataset:
    input:
        source=get_source_file,
        script=local("workflow_scripts/prepare_dataset.py"),
    output:
        manifest="results/datasets/{dataset}/dataset.json",
        train="results/datasets/{dataset}/train.parquet",
        val="results/datasets/{dataset}/val.parquet",
        test="results/datasets/{dataset}/test.parquet",
        notes="results/datasets/{dataset}/notes.json",
    log:
        "logs/prepare_dataset/{dataset}.log",
    benchmark:
        "logs/benchmarks/prepare_dataset/{dataset}.tsv"
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_by_size(),
        # The number of images is not known yet; those of ImageNet take one core hours.
        runtime=per_attempt(240),
    params:
        spec=get_dataset_spec,
        listing=get_folder_digest,
        content=get_source_content,
        seed=STUDY["seed"],
        code=code_digest("data.prepare"),
        folder=subpath(output.manifest, parent=True),
    message:
        "Splitting {wildcards.dataset} into train, val and test"
    shell:
        "printf %s {params.spec:q} | "
        "python {input.script:q} --name {wildcards.dataset:q} --spec - "
        "--seed {params.seed} --output {params.folder:q} 2>&1 | tee {log:q}"


# The classes come from the parent's manifest; its images are not read.
rule prepare_shifted_test:
    input:
        parent="results/datasets/{dataset}/dataset.json",
        source=get_source_file,
        script=local("workflow_scripts/prepare_shifted_test.py"),
    output:
        manifest="results/datasets/{dataset}/shifted/{shift}/dataset.json",
        test="results/datasets/{dataset}/shifted/{shift}/test.parquet",
        notes="results/datasets/{dataset}/shifted/{shift}/notes.json",
    log:
        "logs/prepare_shifted_test/{dataset}/{shift}.log",
    benchmark:
        "logs/benchmarks/prepare_shifted_test/{dataset}/{shift}.tsv"
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=memory_by_size(),
        runtime=per_attempt(60),
    params:
        spec=get_dataset_spec,
        listing=get_folder_digest,
        content=get_source_content,
        code=code_digest("data.prepare"),
        parent=subpath(input.parent, parent=True),
        folder=subpath(output.manifest, parent=True),
    message:
        "Preparing the shifted test {wildcards.shift} of {wildcards.dataset}"
    shell:
        "printf %s {params.spec:q} | "
        "python {input.script:q} --shift {wildcards.shift:q} --spec - "
        "--parent {params.parent:q} --output {params.folder:q} 2>&1 | tee {log:q}"
