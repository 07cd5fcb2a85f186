"""The command line: results, logs and signals."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.result import StageResult
from finetune_trainer.cli import main, parser
from finetune_trainer.errors import Preempted
from finetune_trainer.prepare import stage as prepare_stage
from finetune_trainer.progress import push as progress_push
from finetune_trainer.run_folder import stage_results
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.node import Node
from finetune_trainer.train import stage as train_stage
from tests.support.trainer_job import JOB, TrainerJob, alpaca_rows, write_rows


def _files(job: TrainerJob) -> list[str]:
    return sorted(p.relative_to(job.output).as_posix() for p in job.output.rglob("*") if p.is_file())


def test_prepare_leaves_rows_a_result_and_a_log(job: TrainerJob) -> None:
    assert job.run("prepare") == 0
    run = job.result()["runId"]
    # The model's checksums are kept too, where its files are not so new that they may still be written.
    assert [name for name in _files(job) if not name.startswith("gym/.index/models/")] == [
        "gym/.runs/11111111-2222/prepare.json",
        f"gym/coach/{run}/logs/prepare-0.log",
        f"gym/coach/{run}/prepared/holdout.parquet",
        f"gym/coach/{run}/prepared/prepared.json",
        f"gym/coach/{run}/prepared/train.parquet",
        f"gym/coach/{run}/report.json",
    ]
    kept = json.loads((job.output / "gym/.runs/11111111-2222/prepare.json").read_bytes())
    assert kept["exitCode"] == 0
    assert kept["dataset"]["examples"] == 60


def test_nothing_is_left_in_scratch(job: TrainerJob) -> None:
    job.run("prepare")
    assert list((job.root / "scratch").iterdir()) == []


def test_the_same_job_prepares_the_same_bytes(job: TrainerJob) -> None:
    def prepared() -> dict[str, bytes]:
        job.run("prepare")
        # Whether a file of the model is old enough to be known by its time of change depends on the clock.
        return {p.name: re.sub(rb',\s*"changedNs": \d+', b"", p.read_bytes()) for p in job.output.rglob("prepared/*")}

    before = prepared()
    assert before == prepared()
    assert len(before) == 3


@pytest.mark.parametrize("stage", ["train", "export"])
def test_a_stage_before_its_time_says_what_to_run(job: TrainerJob, stage: str) -> None:
    job.plan["allowCPU"] = True
    assert job.run(stage) == 64
    assert job.result()["message"] == (
        f"prepare has not finished for this job: {job.output.as_uri()} has no gym/.runs/11111111-2222/prepare.json; "
        "run prepare first, with the same plan and output"
    )


def test_a_crash_is_one_sentence_and_its_traceback_is_in_the_log(
    job: TrainerJob, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def crash(context: Context) -> StageResult:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(prepare_stage, "run", crash)
    assert job.run("prepare") == 1
    log = "gym/.runs/11111111-2222/logs/prepare-0.log"
    assert job.result()["message"] == f"unexpected ZeroDivisionError in prepare; the log is at {log}"
    assert job.result()["reason"] == "Crashed"
    assert "Traceback" not in "".join(capfd.readouterr())
    assert "ZeroDivisionError: secret detail" in (job.output / log).read_text()


def test_a_failure_that_a_stage_returns_is_reported_and_not_stored(
    job: TrainerJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_stage, "run", lambda context: stage_results.failed("train", Preempted("saved"), 7))
    assert job.run("train") == 75
    found = job.result()
    assert (found["reason"], found["message"], found["checkpointStep"]) == ("Preempted", "saved", 7)
    assert _files(job) == ["gym/.runs/11111111-2222/logs/train-0.log"]


def test_the_log_has_what_children_print(job: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(context: Context) -> StageResult:
        subprocess.run([sys.executable, "-c", "import os; os.write(1, b'child\\n')"], check=True)
        return StageResult(stage="prepare", exit_code=0, run_id="a" * 64)

    monkeypatch.setattr(prepare_stage, "run", talk)
    assert job.run("prepare") == 0
    assert "child\n" in (job.output / f"gym/coach/{'a' * 64}/logs/prepare-0.log").read_text()


def test_attempts_have_logs_of_their_own(job: TrainerJob) -> None:
    job.dataset.unlink()
    job.arguments[:] = ["--attempt", "3"]
    job.run("prepare")
    assert _files(job) == ["gym/.runs/11111111-2222/logs/prepare-3.log"]


def test_output_may_be_given_by_hand(job: TrainerJob) -> None:
    job.arguments[:] = ["--output", (job.root / "else where").as_uri()]
    assert job.run("prepare") == 0
    assert (job.root / "else where" / "gym").is_dir()
    assert not job.output.exists()


def test_environment_is_set_for_the_stage_and_set_back(job: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def look(context: Context) -> StageResult:
        seen.update(os.environ)
        return StageResult(stage="prepare", exit_code=0, run_id="a" * 64)

    job.plan["allowCPU"] = False
    monkeypatch.setattr(prepare_stage, "run", look)
    before = dict(os.environ)
    job.run("prepare")
    assert seen["HF_HUB_OFFLINE"] == seen["UNSLOTH_DISABLE_CPU_FALLBACK"] == "1"
    assert seen["USER"] == "trainer"
    for name in ("HOME", "TMPDIR", "HF_HOME", "TRITON_CACHE_DIR", "UNSLOTH_COMPILE_LOCATION"):
        assert seen[name].startswith(str(job.root / "scratch"))
    assert dict(os.environ) == before


def test_sigterm_ends_prepare_quickly_with_its_log(job: TrainerJob, tmp_path: Path) -> None:
    # A named pipe that nobody writes to: prepare waits in it for its data.
    program = (
        "import sys, time\n"
        "from finetune_trainer.prepare import stage\n"
        "from finetune_trainer.cli import main\n"
        "def run(context):\n"
        "    print('waiting', flush=True)\n"
        "    try:\n"
        "        time.sleep(600)\n"
        "    except Exception:\n"
        "        pass\n"
        "stage.run = run\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(job.plan))
    process = subprocess.Popen(
        [sys.executable, "-c", program, "prepare", "--plan", str(plan)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    with process:
        assert process.stderr is not None
        while b"waiting" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        # Long before what it does has ended.
        assert process.wait(60) == 75
    assert job.result()["reason"] == "Preempted"
    assert job.result()["message"] == "prepare was asked to stop; it starts again automatically"
    assert "waiting" in (job.output / job.result()["log"]).read_text()


def test_three_commands_take_a_job_file_to_a_result(
    tmp_path: Path, tiny: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    job, data, plan = tmp_path / "job.yaml", tmp_path / "data.jsonl", tmp_path / "plan.json"
    content = JOB | {"metadata": {"name": "coach"}}
    job.write_text(yaml.safe_dump(content))
    write_rows(data, alpaca_rows(60))
    given = ["--job", str(job), "--model", str(tiny), "--dataset", str(data), "--output", str(tmp_path / "out")]
    assert main(["plan", *given, "--allow-cpu"]) == 0
    plan.write_text(capfd.readouterr().out)
    assert main(["prepare", "--plan", str(plan)]) == 0
    assert (tmp_path / "out" / "default" / "coach").is_dir()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--job", "none.yaml"], "none.yaml cannot be read: No such file or directory\n"),
        (["--job", "pod.yaml"], "pod.yaml is not a FineTuneJob; its kind must be FineTuneJob\n"),
        (["--job", "broken.yaml"], "broken.yaml is not valid: spec.output: Field required\n"),
        (["--job", "job.yaml", "--dataset", "none.jsonl"], "--dataset none.jsonl does not exist\n"),
        (
            ["--job", "job.yaml", "--dataset", "job.yaml", "--dataset", "job.yaml"],
            "the job has 1 dataset sources and 2 files were given; pass --dataset once per source, in their order\n",
        ),
        (
            ["--job", "volume.yaml"],
            "--model is missing: spec.model is a volume, which only a cluster has; pass the folder as --model\n",
        ),
    ],
)
def test_plan_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    given: list[str],
    sentence: str,
) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    spec = JOB["spec"]
    volume = {"persistentVolumeClaim": {"claimName": "models"}}
    for name, content in {
        "job.yaml": JOB,
        "pod.yaml": {"kind": "Pod"},
        "broken.yaml": JOB | {"spec": {k: v for k, v in spec.items() if k != "output"}},
        "volume.yaml": JOB | {"spec": spec | {"model": volume}},
    }.items():
        Path(name).write_text(yaml.safe_dump(content))
    assert main(["plan", *given]) == 64
    assert capfd.readouterr().err == sentence


def test_help_names_every_stage() -> None:
    text = parser().format_help()
    for word in ("prepare", "train", "export", "plan"):
        assert word in text


PODS = ["--nodes", "2", "--leader", "coach-train-0-0.train-coach"]


@pytest.fixture
def trained(job: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> list[Context]:
    """What train was given each time; it is replaced by one that ends well."""
    given: list[Context] = []

    def run(context: Context) -> StageResult:
        given.append(context)
        return StageResult(stage="train", exit_code=0, run_id="a" * 64)

    monkeypatch.setattr(train_stage, "run", run)
    return given


def test_the_first_of_several_pods_leaves_the_result(job: TrainerJob, trained: list[Context]) -> None:
    job.arguments[:] = [*PODS, "--node", "0"]
    assert job.run("train") == 0
    assert _files(job) == ["gym/.runs/11111111-2222/train.json", f"gym/coach/{'a' * 64}/logs/train-0.log"]
    assert trained[0].node == Node(0, 2, "coach-train-0-0.train-coach", 29400)


def test_another_pod_leaves_its_log_alone(
    job: TrainerJob, trained: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    for name in ("URL", "TOKEN_FILE", "CA_FILE"):
        monkeypatch.setenv(f"FINETUNE_PROGRESS_{name}", "https://operator")
    # Progress is the first pod's affair.
    monkeypatch.delattr(progress_push, "ProgressPush")
    job.arguments[:] = PODS
    assert job.run("train") == 0
    log = f"gym/coach/{'a' * 64}/logs/train-0-node-1.log"
    assert _files(job) == [log]
    assert (job.result()["exitCode"], job.result()["log"]) == (0, log)
    assert trained[0].node.index == 1


def test_a_pod_of_an_indexed_job_that_trains_alone_leads(
    job: TrainerJob, trained: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert job.run("train") == 0
    assert trained[0].node.alone
    assert trained[0].node.leads


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--nodes", "2", "--node", "0"], "--nodes needs --leader"),
        (PODS, "--nodes needs --node, or JOB_COMPLETION_INDEX: a number from 0 to 1"),
        ([*PODS, "--node", "2"], "--nodes needs --node, or JOB_COMPLETION_INDEX: a number from 0 to 1"),
        (["--nodes", "2", "--leader", "host:none"], "argument --leader: invalid address value: 'host:none'"),
        (["--nodes", "0"], "argument --nodes: invalid _positive value: '0'"),
    ],
)
def test_pods_that_cannot_find_each_other_are_a_usage_error(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", *given])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
