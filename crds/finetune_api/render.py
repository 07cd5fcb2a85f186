"""Renders the plan of a job: references become paths and addresses, and defaults are filled in."""

from finetune_api.dataset_spec import HOLDOUT_PERCENT, DatasetSource, DatasetSpec
from finetune_api.job import FineTuneJob
from finetune_api.model_spec import AdapterSource, HuggingFaceModel, ModelSpec
from finetune_api.plan import (
    MODEL_MOUNT,
    TEMPLATE_MOUNT,
    AdapterPlan,
    DatasetPlan,
    Defaults,
    EvaluationPlan,
    ExportPlan,
    GatePlan,
    HubFile,
    HubSource,
    JobIdentity,
    LoRAPlan,
    MLflowPlan,
    ModelPlan,
    OutputPlan,
    Plan,
    PreferencePlan,
    S3Target,
    SourcePlan,
    TrainingPlan,
    WeightsPlan,
    ca_file,
    credentials_dir,
    dataset_mount,
    source_name,
    token_file,
)
from finetune_api.references import S3Connection
from finetune_api.spec import EvaluationSpec, ExportSpec
from finetune_api.training_spec import (
    CHECKPOINT_SECONDS,
    LEARNING_RATES,
    METHOD_SETTINGS,
    TrainingSpec,
)


def _s3_target(uri: str, *connections: S3Connection) -> S3Target:
    """Merge connections member by member; the first that sets a member wins."""

    def first(member: str) -> object:
        return next((v for c in connections if (v := getattr(c, member)) is not None), None)

    secret = first("credentials_secret_ref")
    ca = first("ca_bundle")
    return S3Target.model_validate(
        {
            "uri": uri,
            "endpoint": first("endpoint"),
            "region": first("region"),
            "forcePathStyle": first("force_path_style") or False,
            "credentialsDir": credentials_dir(secret.name) if secret else None,  # type: ignore[attr-defined]
            "caFile": ca_file(ca.config_map.name, ca.config_map.key) if ca else None,  # type: ignore[attr-defined]
        }
    )


def _model(spec: ModelSpec, output: S3Connection, defaults: Defaults) -> ModelPlan:
    volume = spec.persistent_volume_claim
    return ModelPlan(
        hub=_hub_model(spec.hugging_face, defaults) if spec.hugging_face else None,
        s3=_s3_target(spec.s3.uri, spec.s3, output, defaults.s3) if spec.s3 else None,
        path=f"{MODEL_MOUNT}/{volume.path}" if volume else None,
        quantization=spec.quantization,
        max_sequence_length=spec.max_sequence_length,
        adapter=_adapter(spec.adapter, output, defaults),
    )


def _hub_model(spec: HuggingFaceModel, defaults: Defaults) -> HubSource:
    ref = spec.token_secret_ref
    return HubSource(
        repository=spec.repository,
        revision=spec.revision,
        endpoint=defaults.hugging_face_endpoint,
        token_file=token_file(ref.name, ref.key) if ref else None,
    )


def _adapter(spec: AdapterSource | None, output: S3Connection, defaults: Defaults) -> AdapterPlan | None:
    if spec is None:
        return None
    if spec.s3:
        return AdapterPlan(s3=_s3_target(spec.s3.uri, spec.s3, output, defaults.s3))
    assert spec.fine_tune_job_ref is not None  # checked by the model
    return AdapterPlan(job=spec.fine_tune_job_ref.name)


def _source(
    index: int, name: str, spec: DatasetSource, dataset: DatasetSpec, output: S3Connection, defaults: Defaults
) -> SourcePlan:
    common = SourcePlan(name=name, format=spec.format or dataset.format)
    if spec.s3:
        target = _s3_target(spec.s3.uri, spec.s3, output, defaults.s3)
        return common.model_copy(update={"s3": target, "sha256": spec.s3.sha256})
    if spec.config_map:
        return common.model_copy(update={"path": f"{dataset_mount(index)}/{spec.config_map.key}"})
    if spec.persistent_volume_claim:
        return common.model_copy(update={"path": f"{dataset_mount(index)}/{spec.persistent_volume_claim.path}"})
    if spec.http:
        return common.model_copy(update={"url": spec.http.url, "sha256": spec.http.sha256})
    assert spec.hugging_face is not None  # checked by the model
    ref = spec.hugging_face.token_secret_ref
    hub = HubFile(
        repository=spec.hugging_face.repository,
        revision=spec.hugging_face.revision,
        endpoint=spec.hugging_face.endpoint or defaults.hugging_face_endpoint,
        token_file=token_file(ref.name, ref.key) if ref else None,
        path=spec.hugging_face.path,
    )
    return common.model_copy(update={"hub": hub})


def _dataset(spec: DatasetSpec, output: S3Connection, defaults: Defaults) -> DatasetPlan:
    held = spec.holdout.sources or []
    first = len(spec.sources)
    template = spec.template_ref
    return DatasetPlan(
        sources=[_source(i, source_name(i, s), s, spec, output, defaults) for i, s in enumerate(spec.sources)],
        holdout_sources=[
            _source(first + i, s.name or f"holdout-{i + 1}", s, spec, output, defaults) for i, s in enumerate(held)
        ],
        format=spec.format,
        columns=spec.columns or {},
        prompt_template=spec.prompt_template or "Auto",
        template_file=f"{TEMPLATE_MOUNT}/{template.key}" if template else None,
        chat_template_kwargs=spec.chat_template_kwargs or {},
        system_prompt=spec.system_prompt,
        minimum_examples=spec.checks.minimum_examples,
        invalid_rows=spec.checks.invalid_rows,
        duplicates=spec.checks.duplicates,
        truncation=spec.checks.truncation,
        holdout_percent=spec.holdout.percent or HOLDOUT_PERCENT,
    )


def _preference(spec: TrainingSpec) -> PreferencePlan | None:
    if spec.method not in METHOD_SETTINGS:
        return None
    settings = getattr(spec, spec.method.lower()) or METHOD_SETTINGS[spec.method]()
    return PreferencePlan(**{name: float(value) for name, value in settings})


def _training(spec: TrainingSpec) -> TrainingPlan:
    checkpoint = spec.checkpoint
    timed = checkpoint.every_seconds is None and checkpoint.every_steps is None
    return TrainingPlan(
        method=spec.method,
        preference=_preference(spec),
        lora=LoRAPlan(
            rank=spec.lora.rank,
            alpha=spec.lora.alpha,
            dropout=float(spec.lora.dropout),
            target_modules=sorted(spec.lora.target_modules),
            use_rslora=spec.lora.use_rslora,
        ),
        batch_size=spec.batch_size,
        micro_batch_size=spec.micro_batch_size,
        max_steps=spec.max_steps,
        epochs=spec.epochs,
        learning_rate=float(spec.learning_rate or LEARNING_RATES[spec.method]),
        learning_rate_schedule=spec.learning_rate_schedule,
        warmup_steps=spec.warmup_steps,
        warmup_ratio=_optional_float(spec.warmup_ratio),
        weight_decay=float(spec.weight_decay),
        max_grad_norm=float(spec.max_grad_norm),
        adam_beta2=float(spec.adam_beta2),
        neftune_noise_alpha=_optional_float(spec.neftune_noise_alpha),
        keep=spec.keep,
        early_stopping_patience=spec.early_stopping_patience,
        optimizer=spec.optimizer,
        precision=spec.precision,
        gradient_checkpointing=spec.gradient_checkpointing,
        train_on_responses_only=spec.train_on_responses_only,
        seed=spec.seed,
        checkpoint_seconds=CHECKPOINT_SECONDS if timed else checkpoint.every_seconds,
        checkpoint_steps=checkpoint.every_steps,
        hang_timeout_seconds=spec.hang_timeout_seconds,
    )


def _optional_float(value: str | None) -> float | None:
    return None if value is None else float(value)


def _evaluation(spec: EvaluationSpec) -> EvaluationPlan:
    gate = GatePlan(holdout_loss=spec.gate.holdout_loss, on_miss=spec.gate.on_miss) if spec.gate else None
    return EvaluationPlan(prompts=spec.prompts, max_new_tokens=spec.max_new_tokens, gate=gate)


def _mlflow(job: FineTuneJob) -> MLflowPlan | None:
    spec = job.spec.tracking.mlflow
    if spec is None:
        return None
    return MLflowPlan(
        uri=spec.uri,
        experiment=spec.experiment or f"{job.metadata.namespace}/{job.metadata.name}",
        credentials_dir=credentials_dir(spec.credentials_secret_ref.name) if spec.credentials_secret_ref else None,
    )


def _export(spec: ExportSpec, output: S3Connection, defaults: Defaults) -> ExportPlan:
    original = spec.original_model
    return ExportPlan(
        gguf=sorted(spec.gguf),
        lora_gguf=spec.lora_gguf,
        merged=spec.merged,
        merge_base=spec.merge_base,
        original=WeightsPlan(
            hub=_hub_model(original.hugging_face, defaults) if original.hugging_face else None,
            s3=_s3_target(original.s3.uri, original.s3, output, defaults.s3) if original.s3 else None,
        )
        if original
        else None,
        report_language=spec.report_language,
    )


def render(job: FineTuneJob, defaults: Defaults) -> Plan:
    """Render the plan of a job. Pure: the same job and defaults give the same bytes."""
    spec = job.spec
    output = spec.output.s3
    return Plan(
        job=JobIdentity(namespace=job.metadata.namespace, name=job.metadata.name, uid=job.metadata.uid),
        model=_model(spec.model, output, defaults),
        dataset=_dataset(spec.dataset, output, defaults),
        training=_training(spec.training),
        evaluation=_evaluation(spec.evaluation),
        export=_export(spec.export, output, defaults),
        output=OutputPlan(s3=_s3_target(output.uri, output, defaults.s3), reuse=spec.output.reuse),
        mlflow=_mlflow(job),
        gpu_memory_mib=spec.compute.accelerator.memory_mib,
        policy=defaults.policy,
        allow_cpu=defaults.allow_cpu,
    )
