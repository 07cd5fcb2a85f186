"""Run examples/demo.yaml on a real Kubernetes and show what a user sees. `make demo` calls it."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from local_platform import trainer_image
from local_platform.commands import ROOT, PlatformError
from local_platform.platform import Platform, bring_up, is_external

NAMESPACE = "demo"
TIMEOUT_SECONDS = 1800
# On two idle CPUs, with the image pulled for the first time.
JOB_SECONDS = 350
STAGES = {"Preparing": "prepare", "Training": "train", "Exporting": "export"}


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def heading(text: str) -> None:
    """Print what comes next."""
    say(f"\n{text}")


def follow(platform: Platform, name: str) -> dict[str, Any]:
    """Show progress until the job is finished and return it.

    Raises:
        PlatformError: it did not finish in time.
    """
    live = sys.stdout.isatty()
    shown = ""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        job = platform.job(NAMESPACE, name)
        status = job.get("status", {})
        line = progress_line(status)
        if line != shown:
            print(f"\r\033[K{line}" if live else line, end="" if live else "\n", flush=True)
            shown = line
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        if conditions.get("Finished", {}).get("status") == "True":
            if live:
                print()
            return job
        time.sleep(1)
    raise PlatformError(f"the job did not finish in {TIMEOUT_SECONDS} s: kubectl describe ftj -n {NAMESPACE} {name}")


def progress_line(status: dict[str, Any]) -> str:
    """Return one line: phase, activity, bar, loss and time left."""
    progress = status.get("progress", {})
    if progress.get("stage") != STAGES.get(status.get("phase", "")):
        progress = {}  # the last word of the stage before
    parts = [f"{status.get('phase', 'Pending'):<10}", f"{progress.get('activity', ''):<12}"]
    step, total = progress.get("step"), progress.get("totalSteps")
    if progress.get("activity") == "Training" and total:
        done = round(30 * (step or 0) / total)
        parts.append(f"[{'#' * done}{'.' * (30 - done)}] {progress.get('steps', '')}")
        if "loss" in progress:
            parts.append(f"loss {progress['loss']}")
        if "eta" in progress:
            parts.append(f"ETA {progress['eta']}")
    elif status.get("phase") not in ("Succeeded", "Failed"):
        waiting = next((c["message"] for c in status.get("conditions", []) if c["type"] == "Ready"), "")
        if not progress:
            parts.append(waiting[:80])
    return "  ".join(p for p in parts if p.strip())


def ask_gguf(platform: Platform, key: str, question: str) -> str:
    """Download a GGUF file and let llama.cpp answer with it."""
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, "model.gguf").open("wb") as file:
            platform.s3().download_fileobj("results", key, file)
        return trainer_image.ask_gguf(Path(folder), "model.gguf", question)


def show_result(platform: Platform, job: dict[str, Any]) -> tuple[int, int]:
    """Print conditions, files and answers; return the adapter's bytes and the number of GGUF files."""
    status = job["status"]
    heading("Conditions")
    for condition in status["conditions"]:
        say(f"  {condition['type']:<12} {condition['status']:<6} {condition['reason']:<18} {condition['message']}")
    heading(f"In the bucket: {status['outputUri']}")
    prefix = status["outputUri"].removeprefix("s3://results/").rstrip("/") + "/"
    files = platform.objects(prefix)
    for key, size in files.items():
        say(f"  {size:>12,}  {key.removeprefix(prefix)}")
    answers = json.loads(platform.read(f"{prefix}answers.json"))
    question = answers["questions"][0]
    heading(f"Asked: {question['prompt']}")
    say(f"  before  {one_line(question['base'])}")
    say(f"  after   {one_line(question['tuned'])}")
    gguf = [key for key in files if key.endswith(".gguf")]
    for key in gguf[:1]:
        say(f"  GGUF    {one_line(ask_gguf(platform, key, question['prompt']))}   ({Path(key).name}, llama.cpp)")
    adapter = next(a["sizeBytes"] for a in status["artifacts"] if a["type"] == "LoRAAdapter")
    return adapter, len(gguf)


def reach_lines(*, local: bool) -> list[str]:
    """Return the commands with which a user looks around in the cluster and in its bucket."""
    # Of a cluster of somebody's own, the shell has the variables already.
    reach = 'eval "$(hack/cluster env)" && ' if local else ""
    return [
        f"{reach}kubectl get ftj,jobs,pods -n {NAMESPACE}",
        f'{reach}aws s3 ls --recursive --endpoint-url "$S3_ENDPOINT" s3://results/{NAMESPACE}/',
    ]


def one_line(text: str) -> str:
    """Shorten an answer to the terminal's width."""
    return " ".join(text.split())[: shutil.get_terminal_size((140, 24)).columns - 40]


def main() -> int:
    """Run the demo and return the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    # As after Ctrl-C, the builds that it has started end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        heading("Platform")
        platform = bring_up(say, JOB_SECONDS)
        platform.namespace(NAMESPACE)
        manifest = (ROOT / "examples/demo.yaml").read_text()
        name = yaml.safe_load(manifest)["metadata"]["name"]
        platform.kubectl("delete", "finetunejob", name, "-n", NAMESPACE, "--ignore-not-found", "--wait")
        heading("$ kubectl apply -f examples/demo.yaml")
        say(platform.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=manifest).strip())
        job = follow(platform, name)
        heading(f"$ kubectl get ftj {name}")
        say(platform.kubectl("get", "ftj", name, "-n", NAMESPACE).rstrip())
        failure = job["status"].get("failure")
        if failure:
            say(f"\nDEMO FAILED in {failure.get('stage', 'acceptance')}: {failure['reason']}: {failure['message']}")
            return 1
        adapter, gguf = show_result(platform, job)
    except PlatformError as error:
        say(f"\nDEMO FAILED: {error}")
        return 1
    say(
        f"\nDEMO OK run={job['status']['runId']} adapter_bytes={adapter} gguf={gguf} "
        f"seconds={time.monotonic() - started:.0f}"
    )
    heading("Look around in the cluster, and in its bucket:")
    for line in reach_lines(local=not is_external()):
        say(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
