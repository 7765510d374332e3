# A job keeps its state in the folder state/ next to its outputs, undeclared, to resume from it:
# Snakemake deletes the declared outputs of a job that failed or was killed.


rule finetune_model:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        splits=ancient(
            expand("results/datasets/{{dataset}}/{split}.parquet", split=["train", "val"])
        ),
        text="results/embeddings/{model}/{dataset}/text.parquet",
        model=get_model_files,
        script=local("workflow_scripts/finetune.py"),
    output:
        best="results/trials/{model}/{method}/{dataset}/{part}/best.json",
        epochs="results/trials/{model}/{method}/{dataset}/{part}/epochs.parquet",
        trained_weights=(
            "results/trials/{model}/{method}/{dataset}/{part}/trained_weights.safetensors"
        ),
    log:
        "logs/finetune_model/{model}/{method}/{dataset}/{part}.log",
    benchmark:
        "logs/benchmarks/finetune_model/{model}/{method}/{dataset}/{part}.tsv"
    wildcard_constraints:
        method=one_of(FINETUNED_METHODS),
    priority: LONG_WAY
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: STUDY["models"][wildcards.model]["gpus"],
        # As many, also if a profile sets `gpu` to 0 and asks Slurm by another option. A param would
        # rerun the training when their number changes.
        processes=lambda wildcards: STUDY["models"][wildcards.model]["gpus"],
        mem_mb=memory_by_size(trains=True, per_gpu=True),
        runtime=get_training_minutes,
    params:
        spec=get_model_spec,
        files=get_model_digest,
        recipe=get_recipe,
        trials=get_trials,
        seed=get_seed,
        code=code_digest("training.finetune"),
        dataset=subpath(input.manifest, parent=True),
        prepared="results/prepared",
        folder=subpath(output.best, parent=True),
    message:
        "Fine-tuning {wildcards.model} on {wildcards.dataset} with {wildcards.method}"
    shell:
        "printf %s {params.trials:q} | "
        "python {input.script:q} --model {wildcards.model:q} --method {wildcards.method:q} "
        "--dataset-name {wildcards.dataset:q} --model-spec {params.spec:q} "
        "--recipe {params.recipe:q} --trials - --seed {params.seed} "
        "--dataset {params.dataset:q} --text {input.text:q} --prepared {params.prepared:q} "
        "--output {params.folder:q} --gpus {resources.processes} 2>&1 | tee {log:q}"


rule fit_cached:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        train=get_features("train"),
        val=get_features("val"),
        text=get_adapter_captions,
        script=local("workflow_scripts/fit_cached.py"),
    output:
        best="results/trials/{model}/{method}/{dataset}/{part}/best.json",
        epochs="results/trials/{model}/{method}/{dataset}/{part}/epochs.parquet",
        trained_weights=(
            "results/trials/{model}/{method}/{dataset}/{part}/trained_weights.safetensors"
        ),
    log:
        "logs/fit_cached/{model}/{method}/{dataset}/{part}.log",
    benchmark:
        "logs/benchmarks/fit_cached/{model}/{method}/{dataset}/{part}.tsv"
    wildcard_constraints:
        method=one_of(FITTED_METHODS),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        mem_mb=memory_by_size(),
        runtime=get_fitting_minutes,
    params:
        recipe=get_recipe,
        trials=get_trials,
        seed=get_seed,
        code=code_digest("training.on_embeddings"),
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.train, parent=True),
        folder=subpath(output.best, parent=True),
    message:
        "Training {wildcards.method} on the embeddings of {wildcards.dataset} by {wildcards.model}"
    shell:
        "printf %s {params.trials:q} | "
        "python {input.script:q} --model {wildcards.model:q} --method {wildcards.method:q} "
        "--dataset-name {wildcards.dataset:q} --recipe {params.recipe:q} "
        "--trials - --seed {params.seed} --dataset {params.dataset:q} "
        "--embeddings {params.embeddings:q} --output {params.folder:q} 2>&1 | tee {log:q}"


# A method whose trials run in one job needs no selection: the job's best.json is the best.
rule select_trial:
    input:
        parts=get_part_selections,
        script=local("workflow_scripts/select_trial.py"),
    output:
        best="results/selected/{model}/{method}/{dataset}.json",
    log:
        "logs/select_trial/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/select_trial/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method=one_of(SPLIT_METHODS),
    priority: LONG_WAY
    localrule: True  # too small for a cluster job
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        code=code_digest("training.trials"),
    message:
        "Selecting the trial of {wildcards.method} for {wildcards.model} on {wildcards.dataset}"
    shell:
        "python {input.script:q} --parts {input.parts:q} --output {output.best:q} "
        "2>&1 | tee {log:q}"
