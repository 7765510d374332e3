# A job keeps its state (state/) beside its outputs and does not declare it: Snakemake deletes
# the declared outputs of a job that failed or was killed.


rule finetune_model:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        splits=ancient(
            expand("results/datasets/{{dataset}}/{split}.parquet", split=["train", "val"])
        ),
        text="results/embeddings/{model}/{dataset}/text.parquet",
        model=model_files,
        script=local("workflow_scripts/finetune.py"),
    output:
        best="results/trials/{model}/{method}/{dataset}/{part}/best.json",
        epochs="results/trials/{model}/{method}/{dataset}/{part}/epochs.parquet",
        trained_weights="results/trials/{model}/{method}/{dataset}/{part}/trained_weights.safetensors",
    log:
        "logs/finetune_model/{model}/{method}/{dataset}/{part}.log",
    benchmark:
        "logs/benchmarks/finetune_model/{model}/{method}/{dataset}/{part}.tsv"
    wildcard_constraints:
        method=one_of(TUNED),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: STUDY["models"][wildcards.model]["gpus"],
        # Its weights, their start and the best, gradients, two moments, and what is being saved.
        mem_mb=memory_for(copies=8, per_gpu=True),
        runtime=time_to_train,
    params:
        spec=model_spec,
        recipe=recipe,
        trials=trials,
        seed=STUDY["seed"],
        code=code_digest("training.finetune"),
        dataset=subpath(input.manifest, parent=True),
        prepared="results/prepared",
        folder=subpath(output.best, parent=True),
    shell:
        "python {input.script} --model {wildcards.model} --method {wildcards.method} "
        "--dataset-name {wildcards.dataset} --model-spec {params.spec:q} "
        "--recipe {params.recipe:q} --trials {params.trials:q} --seed {params.seed} "
        "--dataset {params.dataset} --text {input.text} --prepared {params.prepared} "
        "--output {params.folder} --gpus {resources.gpu} 2>&1 | tee {log}"


rule fit_cached:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        train="results/embeddings/{model}/{dataset}/train.parquet",
        val="results/embeddings/{model}/{dataset}/val.parquet",
        text=captions_of_adapter,
        script=local("workflow_scripts/fit_cached.py"),
    output:
        best="results/trials/{model}/{method}/{dataset}/{part}/best.json",
        epochs="results/trials/{model}/{method}/{dataset}/{part}/epochs.parquet",
        trained_weights="results/trials/{model}/{method}/{dataset}/{part}/trained_weights.safetensors",
    log:
        "logs/fit_cached/{model}/{method}/{dataset}/{part}.log",
    benchmark:
        "logs/benchmarks/fit_cached/{model}/{method}/{dataset}/{part}.tsv"
    wildcard_constraints:
        method=one_of(FITTED),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        mem_mb=memory_for(),
        runtime=time_to_fit,
    params:
        recipe=recipe,
        trials=trials,
        seed=STUDY["seed"],
        code=code_digest("training.on_embeddings"),
        dataset=subpath(input.manifest, parent=True),
        embeddings=subpath(input.train, parent=True),
        folder=subpath(output.best, parent=True),
    shell:
        "python {input.script} --model {wildcards.model} --method {wildcards.method} "
        "--dataset-name {wildcards.dataset} --recipe {params.recipe:q} "
        "--trials {params.trials:q} --seed {params.seed} --dataset {params.dataset} "
        "--embeddings {params.embeddings} --output {params.folder} 2>&1 | tee {log}"


# A method whose trials run in one job has its best.json there: nothing is left to select.
rule select_trial:
    input:
        parts=parts_of,
        script=local("workflow_scripts/select_trial.py"),
    output:
        best="results/selected/{model}/{method}/{dataset}.json",
    log:
        "logs/select_trial/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/select_trial/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method=one_of(SPLIT),
    localrule: True  # too small for a cluster job
    conda:
        "../envs/foretune.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        code=code_digest("training.trials"),
    shell:
        "python {input.script} --parts {input.parts} --output {output.best} 2>&1 | tee {log}"
