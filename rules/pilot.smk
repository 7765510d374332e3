# A few steps of each fine-tuning method, as a predictor of forecasts, if the config asks for it.
rule pilot_model:
    input:
        manifest="results/datasets/{dataset}/dataset.json",
        images=ancient("results/datasets/{dataset}/train.parquet"),
        text="results/embeddings/{model}/{dataset}/text.parquet",
        model=get_model_files,
        script=local("workflow_scripts/pilot.py"),
    output:
        "results/pilots/{model}/{method}/{dataset}.json",
    log:
        "logs/pilot_model/{model}/{method}/{dataset}.log",
    benchmark:
        "logs/benchmarks/pilot_model/{model}/{method}/{dataset}.tsv"
    wildcard_constraints:
        method=one_of(FINETUNED_METHODS),
    conda:
        "../envs/foretune.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory_by_size(trains=True),
        runtime=get_pilot_minutes,
    params:
        spec=get_model_spec,
        files=get_model_digest,
        recipe=get_recipe,
        trials=get_pilot_trial,
        steps=STUDY["forecast"].get("pilot", {}).get("steps"),
        seed=get_seed,
        code=code_digest("training.pilot"),
        dataset=subpath(input.manifest, parent=True),
        prepared="results/prepared",
    message:
        "A pilot of {wildcards.method} for {wildcards.model} on {wildcards.dataset}"
    shell:
        "printf %s {params.trials:q} | "
        "python {input.script:q} --model {wildcards.model:q} --method {wildcards.method:q} "
        "--dataset-name {wildcards.dataset:q} --model-spec {params.spec:q} "
        "--recipe {params.recipe:q} --trials - --seed {params.seed} "
        "--steps {params.steps:q} --dataset {params.dataset:q} --text {input.text:q} "
        "--prepared {params.prepared:q} --output {output:q} 2>&1 | tee {log:q}"
