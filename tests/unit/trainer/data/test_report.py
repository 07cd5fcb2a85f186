"""The data part of the report names the checks as they are called where they are made."""

import json
from pathlib import Path

from finetune_trainer.data import requirements
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.report import data_report
from finetune_trainer.data.rows import collect
from finetune_trainer.sources.dataset_file import local_file


def test_without_token_ids_the_report_names_the_check_that_was_not_made(tmp_path: Path) -> None:
    (tmp_path / "coach").write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    findings = Findings(collect.collect([local_file("coach", tmp_path / "coach")], {}, "SFT"), "Drop")
    made = requirements.truncated_rows([], 1, 8, "Warn")
    assert made is not None
    assert data_report(findings, [], None, None).not_checked == [made.name]
