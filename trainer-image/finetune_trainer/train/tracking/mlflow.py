"""One MLflow run per job and run id: parameters, metrics, tags, outcome."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import MLflowPlan, Plan
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.train.tracking.tracker import Outcome, Point

# MLflow's own limit is 1,000 metrics, 100 parameters and 100 tags in one request.
_METRICS_AT_ONCE = 500
_PARAMS_AT_ONCE = 100
# The longest parameter value that servers of any version accept.
_LONGEST_PARAM = 250
_JOB_UID, _RUN_ID, _VERDICT = "finetune.jobUid", "finetune.runId", "finetune.verdict"
# No secrets in here, and all of it for this program's MLflow alone: short waits, no redirects to other servers than the
# one that was allowed, no telemetry.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MLflowRun:
    """Connects with the first points; a run that an earlier attempt began is continued."""

    name = "MLflow"

    def __init__(self, plan: Plan, description: Prepared) -> None:
        assert plan.mlflow is not None
        self._settings = plan.mlflow
        self._plan = plan
        self._prepared = description
        self._store: Any = None
        self._run_id = ""
        # The last step that the server has, by metric.
        self._known: dict[str, int] = {}

    def write(self, points: Sequence[Point]) -> None:
        """Send the metrics of steps that the server does not have yet."""
        from mlflow.entities import Metric

        self._connect()
        metrics = [
            Metric(name, value, int(point.time * 1000), point.step)
            for point in points
            for name, value in point.values.items()
            if point.step > self._last_known(name)
        ]
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            self._store.log_batch(self._run_id, metrics[start : start + _METRICS_AT_ONCE], [], [])

    def close(self, outcome: Outcome) -> None:
        """Report how the attempt ended."""
        from mlflow.entities import RunStatus, RunTag

        self._connect()
        if outcome.tags:
            self._store.log_batch(
                self._run_id, [], [], [RunTag(f"finetune.{name}", value) for name, value in outcome.tags.items()]
            )
        self._store.update_run_info(
            self._run_id, RunStatus.from_string(outcome.status), int(time.time() * 1000), self._plan.job.name
        )

    def _connect(self) -> None:
        if self._store is not None:
            return
        os.environ.update(_SETTINGS)
        from mlflow.entities import Param, RunStatus

        store = _store(self._settings)
        experiment = _experiment(store, self._settings.experiment)
        self._run_id = self._find(store, experiment) or self._create(store, experiment)
        store.update_run_info(self._run_id, RunStatus.RUNNING, None, self._plan.job.name)
        params = [Param(name, value) for name, value in parameters(self._plan, self._prepared).items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            store.log_batch(self._run_id, [], params[start : start + _PARAMS_AT_ONCE], [])
        self._store = store

    def _find(self, store: Any, experiment: str) -> str | None:
        from mlflow.entities import ViewType

        found = store.search_runs(
            [experiment],
            f"tags.`{_JOB_UID}` = '{self._plan.job.uid}' and tags.`{_RUN_ID}` = '{self._prepared.run_id}'",
            ViewType.ACTIVE_ONLY,
            max_results=1,
        )
        return str(found[0].info.run_id) if found else None

    def _create(self, store: Any, experiment: str) -> str:
        from mlflow.entities import RunTag

        job = self._plan.job
        tags = {
            "finetune.namespace": job.namespace,
            "finetune.job": job.name,
            _JOB_UID: job.uid,
            _RUN_ID: self._prepared.run_id,
        }
        run = store.create_run(
            experiment,
            "finetune",
            int(time.time() * 1000),
            [RunTag(name, value) for name, value in tags.items()],
            job.name,
        )
        return str(run.info.run_id)

    def _last_known(self, metric: str) -> int:
        if metric not in self._known:
            history = self._store.get_metric_history(self._run_id, metric)
            self._known[metric] = max((m.step for m in history), default=-1)
        return self._known[metric]


def _store(settings: MLflowPlan) -> Any:
    """Return MLflow's client of the REST API; its usual one takes credentials from the whole process's environment."""
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import MlflowHostCreds

    def credentials() -> Any:
        # Read for every request: a mounted Secret may change.
        return MlflowHostCreds(
            host=settings.uri,
            username=_credential(settings, "MLFLOW_TRACKING_USERNAME"),
            password=_credential(settings, "MLFLOW_TRACKING_PASSWORD"),
            token=_credential(settings, "MLFLOW_TRACKING_TOKEN"),
        )

    return RestStore(credentials)


def _credential(settings: MLflowPlan, name: str) -> str | None:
    if settings.credentials_dir is None:
        return None
    try:
        return (Path(settings.credentials_dir) / name).read_text().strip() or None
    except FileNotFoundError:
        return None


def _experiment(store: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = store.get_experiment_by_name(name)
    if found is None:
        try:
            return str(store.create_experiment(name))
        except MlflowException:
            # Another job may have been faster.
            found = store.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def parameters(plan: Plan, description: Prepared) -> dict[str, str]:
    """Return what the run was asked to do: the members of the plan that decide the result, by their names in it."""
    members = {
        "training": plan.training.to_json(),
        "model": {
            "name": description.model.reference,
            "revision": description.model.revision,
            "quantization": plan.model.quantization,
            "maxSequenceLength": plan.model.max_sequence_length,
        },
        "dataset": {
            "examples": description.dataset.examples,
            "holdout": description.dataset.holdout,
            "promptTemplate": description.template,
        },
    }
    return dict(_flat("", members))


def _flat(prefix: str, members: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in members.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{prefix}{name}", text[:_LONGEST_PARAM]
