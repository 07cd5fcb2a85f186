import pytest

from finetune_api.layout import JobLayout, join_uri

LAYOUT = JobLayout(namespace="research", name="coach", uid="0a1b")


def test_every_key_of_a_run_lies_below_its_folder() -> None:
    assert LAYOUT.run("ff00") == "research/coach/ff00"
    assert LAYOUT.log("ff00", "train", 2) == "research/coach/ff00/logs/train-2.log"
    assert LAYOUT.log("ff00", "train", 2, node=1) == "research/coach/ff00/logs/train-2-node-1.log"


def test_the_newest_run_is_found_beside_the_runs() -> None:
    assert LAYOUT.latest == "research/coach/latest.json"


def test_a_log_before_the_run_id_is_known_lies_with_the_uid() -> None:
    assert LAYOUT.log(None, "prepare", 0) == "research/.runs/0a1b/logs/prepare-0.log"


def test_a_job_of_the_same_name_and_another_uid_shares_no_state() -> None:
    other = JobLayout(namespace="research", name="coach", uid="9f9f")
    assert LAYOUT.checkpoints == "research/.runs/0a1b/checkpoints"
    assert LAYOUT.result("prepare") == "research/.runs/0a1b/prepare.json"
    assert not other.checkpoints.startswith(LAYOUT.state)


def test_no_job_can_have_the_name_of_the_state_folder() -> None:
    # Names of FineTuneJobs have no dot, so `.runs` never meets one.
    assert LAYOUT.state.split("/")[1].startswith(".")


@pytest.mark.parametrize("base", ["s3://results/tuned", "s3://results/tuned/"])
def test_a_uri_may_end_in_a_slash(base: str) -> None:
    assert join_uri(base, "research/coach/", "/latest.json") == "s3://results/tuned/research/coach/latest.json"
