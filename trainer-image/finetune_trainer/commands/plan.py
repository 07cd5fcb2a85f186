"""Renders a plan from a FineTuneJob file for a run without Kubernetes: local paths instead of references."""

from collections.abc import Sequence
from pathlib import Path

from finetune_api.plan import AdapterPlan, DatasetPlan, Defaults, ModelPlan, OutputPlan, Plan, S3Target, SourcePlan
from finetune_api.render import render
from finetune_trainer.commands import job_file as job_files
from finetune_trainer.errors import SettingsError


def local_plan(
    job_file: Path,
    *,
    model: Path | None = None,
    datasets: Sequence[Path] = (),
    adapter: Path | None = None,
    output: Path | None = None,
    allow_cpu: bool = False,
) -> Plan:
    """Return the plan of the job in `job_file`; the other arguments replace the job's references.

    Raises:
        SettingsError: the file is not a FineTuneJob, a path does not exist, or a reference needs a cluster.
    """
    job = job_files.read(job_file)
    plan = render(job, Defaults(allow_cpu=allow_cpu))
    return plan.model_copy(
        update={
            "model": _model(plan.model, model, adapter),
            "dataset": _dataset(plan.dataset, datasets),
            "output": OutputPlan(
                path=str(output.resolve()) if output else None,
                s3=None if output else _ambient(plan.output.s3),
                reuse=plan.output.reuse,
            ),
            "mlflow": plan.mlflow.model_copy(update={"credentials_dir": None}) if plan.mlflow else None,
        }
    )


def _model(plan: ModelPlan, folder: Path | None, adapter: Path | None) -> ModelPlan:
    if adapter is not None:
        plan = plan.model_copy(update={"adapter": AdapterPlan(path=str(_existing(adapter, "--adapter")))})
    elif plan.adapter is not None:
        plan = plan.model_copy(update={"adapter": plan.adapter.model_copy(update={"s3": _ambient(plan.adapter.s3)})})
    if folder is not None:
        return plan.model_copy(update={"hub": None, "s3": None, "path": str(_existing(folder, "--model"))})
    if plan.path is not None:
        raise SettingsError(
            "--model is missing: spec.model is a volume, which only a cluster has; pass the folder as --model"
        )
    hub = plan.hub.model_copy(update={"token_file": None}) if plan.hub else None
    return plan.model_copy(update={"hub": hub, "s3": _ambient(plan.s3)})


def _dataset(plan: DatasetPlan, files: Sequence[Path]) -> DatasetPlan:
    if plan.template_file is not None:
        raise SettingsError(
            "spec.dataset.templateRef is a ConfigMap, which only a cluster has; choose a promptTemplate instead"
        )
    if any(source.path is not None for source in plan.holdout_sources):
        raise SettingsError(
            "a source of dataset.holdout is a ConfigMap or a volume, which only a cluster has; "
            "keep a percentage aside instead, or put the file on S3, the hub or a web server"
        )
    return plan.model_copy(
        update={
            "sources": _sources(plan.sources, files),
            "holdout_sources": [_without_mounts(source) for source in plan.holdout_sources],
        }
    )


def _sources(plans: Sequence[SourcePlan], files: Sequence[Path]) -> list[SourcePlan]:
    if files:
        if len(files) != len(plans):
            raise SettingsError(
                f"the job has {len(plans)} dataset sources and {len(files)} files were given; "
                "pass --dataset once per source, in their order"
            )
        return [
            source.model_copy(update={"s3": None, "hub": None, "url": None, "path": str(_existing(file, "--dataset"))})
            for source, file in zip(plans, files, strict=True)
        ]
    if any(source.path is not None for source in plans):
        raise SettingsError(
            "a dataset source is a ConfigMap or a volume, which only a cluster has; pass its file as --dataset"
        )
    return [_without_mounts(source) for source in plans]


def _without_mounts(source: SourcePlan) -> SourcePlan:
    hub = source.hub.model_copy(update={"token_file": None}) if source.hub else None
    return source.model_copy(update={"s3": _ambient(source.s3), "hub": hub})


def _ambient(target: S3Target | None) -> S3Target | None:
    """Drop what is mounted in a pod: without one, the usual AWS variables and files are used."""
    return target.model_copy(update={"credentials_dir": None, "ca_file": None}) if target else None


def _existing(path: Path, option: str) -> Path:
    if not path.exists():
        raise SettingsError(f"{option} {path} does not exist")
    return path.resolve()
