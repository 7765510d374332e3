"""The text of a plan: jobs, hours, disk and memory that a study will take. Free of torch.

The jobs are those that Snakemake's dry run lists, so that a study that is half done is planned for
its other half.
"""

from foretune.planning.dataset_sizes import DatasetSize, get_dataset_sizes
from foretune.planning.footprint import estimate_disk, estimate_gpu_memory
from foretune.planning.job_times import JobTimes, PlannedJob, count_gpus


def plan_study(
    study: dict, jobs: list[PlannedJob], time_steps: bool = True, tflops: float | None = None
) -> str:
    """Return the plan as text.

    Args:
        study: checked config.
        jobs: the jobs of a dry run, from `read_jobs`.
        time_steps: whether models whose weights are on this machine are timed.
        tflops: a GPU's real speed in training, instead of an A100's.
    """
    if not jobs:
        return "Nothing is left to run."
    # Imported here, because it imports torch, for which an empty plan or a wrong config need
    # not wait.
    from foretune.planning.model_costs import get_model_costs

    sizes = get_dataset_sizes(study)
    models = get_model_costs(study, sizes, time_steps, tflops)
    seconds = JobTimes(study, sizes, models).estimate_seconds(jobs)
    lines = [
        *format_jobs(study, jobs, seconds),
        "",
        "Disk, when all is done",
        *(
            f"  results/{folder:<31}{size / 1e9:>8.1f} GB"
            for folder, size in estimate_disk(study, sizes, models.costs).items()
        ),
    ]
    gpu_memory = estimate_gpu_memory(study, sizes, models.costs)
    if gpu_memory:
        (model, method), most = max(gpu_memory.items(), key=lambda item: item[1])
        lines += ["", f"GPU memory, at most  {most / 1e9:.1f} GB ({method} of {model})"]
    largest = max(cost.parameters for cost in models.costs.values())
    memory = 1e9 + 4 * 4 * largest
    lines.append(
        f"Memory of a job, at most  {memory / 1e9:.1f} GB, and the system's cache of images"
    )
    notes = [*models.notes, f"image counts: {format_bases(sizes)}"]
    return "\n".join([*lines, "", "Based on", *(f"  {note}" for note in notes)])


def format_jobs(study: dict, jobs: list[PlannedJob], seconds: list[float]) -> list[str]:
    """Return the lines with the number and the time of each rule's jobs, and the hours in all."""
    by_rule: dict[str, list[float]] = {}
    gpu_seconds = cpu_seconds = 0.0
    for job, duration in zip(jobs, seconds, strict=True):
        if job.rule == "all":  # it only asks for the others' files
            continue
        by_rule.setdefault(job.rule, []).append(duration)
        gpus = count_gpus(study, job)
        gpu_seconds += duration * gpus
        cpu_seconds += 0 if gpus else duration
    return [
        f"{'':<22}{'jobs':>8}{'in all':>14}{'longest':>14}",
        *(
            f"{rule:<22}{len(durations):>8,}"
            f"{format_duration(sum(durations)):>14}{format_duration(max(durations)):>14}"
            for rule, durations in sorted(by_rule.items())
        ),
        "",
        f"GPU hours  {gpu_seconds / 3600:,.1f} (of jobs that ask for one)",
        f"CPU hours  {cpu_seconds / 3600:,.1f}",
    ]


def format_bases(sizes: dict[str, DatasetSize]) -> str:
    """Return where the numbers of images come from, with the datasets of each source."""
    by_basis: dict[str, list[str]] = {}
    for name, size in sizes.items():
        by_basis.setdefault(size.basis, []).append(name)
    return "; ".join(f"{basis} ({', '.join(names)})" for basis, names in by_basis.items())


def format_duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours:,} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"
