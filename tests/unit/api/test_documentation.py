"""The README answers what the status asks."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from finetune_api import exit_codes
from finetune_operator import compute_edit, decide, diagnose, evaluated, failures, snapshot, transition

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
REASONS = {
    *exit_codes.REASONS.values(),
    exit_codes.reason(1),
    *get_args(diagnose.Reason),
    failures.OUT_OF_MEMORY,
    failures.EVICTED,
    failures.RESULT_LOST,
    compute_edit.REASON,
    snapshot.PLAN_NEWER,
    decide.ENDPOINT_NOT_ALLOWED,
    evaluated.GATE_MISSED,
    transition.REUSED,
}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_of_a_failure_is_in_the_readme(reason: str) -> None:
    assert re.search(rf"^\| .*`{reason}`", README, re.MULTILINE)


@pytest.mark.parametrize("code", sorted(exit_codes.REASONS))
def test_every_exit_code_is_in_the_readme(code: int) -> None:
    assert f"`{exit_codes.REASONS[code]}` ({code})" in README


def test_the_smallest_job_of_the_readme_is_the_one_in_examples() -> None:
    [block] = re.findall(r"```yaml\n(apiVersion.*?)```", README, re.DOTALL)
    assert yaml.safe_load(block) == yaml.safe_load((ROOT / "examples" / "smallest.yaml").read_text())


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
