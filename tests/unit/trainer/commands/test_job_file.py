"""A local job file is read as strictly as by the API server."""

from pathlib import Path

import pytest

from finetune_trainer.commands import job_file
from finetune_trainer.errors import SettingsError

_JOB = """kind: FineTuneJob
metadata: {{name: coach}}
spec:
  model: {{huggingFace: {{repository: a/b}}}}
  dataset:
    sources: [{{s3: {{uri: "s3://bucket/a.jsonl"}}}}]
    columns: {{output: answer}}
  training: {{{training}}}
  output: {{s3: {{uri: "s3://bucket/x"}}}}
"""


def _file(folder: Path, training: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(_JOB.format(training=training), encoding="utf-8")
    return path


def test_names_chosen_by_the_user_are_no_unknown_fields(tmp_path: Path) -> None:
    assert job_file.read(_file(tmp_path, "maxSteps: 8")).spec.dataset.columns == {"output": "answer"}


def test_a_misspelt_field_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'unknown field "spec.training.maxStep"; did you mean maxSteps\?'):
        job_file.read(_file(tmp_path, "maxStep: 8"))
