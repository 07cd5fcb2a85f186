"""docs/first-job.md works as printed, as far as that can be seen without a cluster, a registry and a GPU.

Its commands run in one shell, in their order. Programs that need what is not here are replaced by one that writes down
what it was asked; Helm is real, and renders the chart instead of installing it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults
from finetune_api.render import render
from local_cluster.layout import binaries

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/first-job.md").read_text()
SCRIPT = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
RUN = "s3://results/coach/first/0123"
STAND_IN = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
name, asked = Path(sys.argv[0]).name, sys.argv[1:]
with open({{log!r}}, "a") as log:
    log.write(json.dumps([name, *asked]) + "\\n")
if "jsonpath={{{{.status.outputUri}}}}" in asked:
    print({RUN!r})
if asked[:2] == ["s3", "cp"]:
    Path(asked[-1], "gguf").mkdir(parents=True)
if name == "helm" and asked[0] == "install":
    asked = [a for a in asked if a not in ("--wait", "--create-namespace")]
    os.execv({{helm!r}}, ["helm", "template", *asked[1:], "--kube-version", "1.31"])
"""


class Shell:
    """What the page's commands asked of which program."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._log.touch()
        self._work = folder / "work"
        self._work.mkdir()
        for entry in ROOT.iterdir():
            (self._work / entry.name).symlink_to(entry)
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name in ("kubectl", "docker", "aws", "ollama", "helm"):
            program = self._bin / name
            program.write_text(STAND_IN.format(log=str(self._log), helm=str(binaries() / "helm")))
            program.chmod(0o755)

    def run(self, script: str) -> str:
        """Run commands; an undefined variable or a failing one ends it."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self._work,
            env={"PATH": f"{self._bin}:{os.environ['PATH']}", "HOME": str(self._work)},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    found = Shell(tmp_path_factory.mktemp("first-job"))
    found.run(SCRIPT)
    return found


def option(command: list[str], name: str) -> str | None:
    """Return the value of `--name value` or `--name=value`."""
    for index, word in enumerate(command):
        if word == name:
            return command[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def starting(shell: Shell, *words: str) -> list[list[str]]:
    return [command for command in shell.asked if command[: len(words)] == list(words)]


@pytest.fixture(scope="module")
def job() -> FineTuneJob:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    content = yaml.safe_load(block)
    assert content == yaml.safe_load((ROOT / "examples/first-job.yaml").read_text())
    content["metadata"] |= {"namespace": "coach", "uid": "0"}
    return FineTuneJob.model_validate(content)


def test_the_job_is_a_job_that_makes_the_file_that_ollama_gets(shell: Shell, job: FineTuneJob) -> None:
    (gguf,) = render(job, Defaults()).export.gguf
    assert starting(shell, "ollama", "create") == [["ollama", "create", "first", "-f", f"Modelfile-{gguf}"]]


def test_it_is_applied_from_a_file_that_exists_and_waited_for(shell: Shell, job: FineTuneJob) -> None:
    [apply] = starting(shell, "kubectl", "apply")
    assert (ROOT / str(option(apply, "-f"))).is_file()
    [wait] = starting(shell, "kubectl", "wait")
    assert wait[2] == f"ftj/{job.metadata.name}"


def test_everything_is_asked_of_one_namespace_which_exists_by_then(shell: Shell) -> None:
    made = False
    for command in starting(shell, "kubectl"):
        if command[1:3] == ["create", "namespace"]:
            made = command[3] == "coach"
        if (namespace := option(command, "--namespace")) is not None:
            assert (made, namespace) == (True, "coach"), command


def test_the_job_finds_its_rows(shell: Shell, job: FineTuneJob) -> None:
    [made] = starting(shell, "kubectl", "create", "configmap")
    file = ROOT / str(option(made, "--from-file"))
    [source] = job.spec.dataset.sources
    assert source.config_map is not None
    assert (source.config_map.name, source.config_map.key) == (made[3], file.name)
    assert file.stat().st_size < 1024 * 1024  # what a ConfigMap holds
    line = re.findall(r"```json\n(.*?)\n", PAGE)[0]
    assert set(json.loads(line)) == set(json.loads(file.read_text().splitlines()[0]))


def test_the_job_finds_its_keys_and_its_bucket(shell: Shell, job: FineTuneJob) -> None:
    [helm] = starting(shell, "helm", "install")
    values = dict(helm[i + 1].split("=", 1) for i, word in enumerate(helm) if word == "--set")
    [secret] = starting(shell, "kubectl", "create", "secret")
    assert values["s3.credentialsSecretRef.name"] == secret[4]
    assert [word.partition("=")[2].partition("=")[0] for word in secret if word.startswith("--from-literal=")] == [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ]
    [bucket] = starting(shell, "aws", "s3", "mb")
    assert str(job.spec.output.s3.uri).startswith(bucket[3])
    assert {option(command, "--endpoint-url") for command in starting(shell, "aws")} == {values["s3.endpoint"]}


def test_the_images_that_are_pushed_are_those_that_the_chart_asks_for(shell: Shell) -> None:
    pushed = {command[2] for command in starting(shell, "docker", "push")}
    built = {option(command, "-t") for command in starting(shell, "docker", "build")}
    [helm] = starting(shell, "helm", "install")
    folder = Path(helm[3])
    version = yaml.safe_load((ROOT / folder / "Chart.yaml").read_text())["appVersion"]
    assert pushed == built == {f"registry.corp/finetune-{image}:{version}" for image in ("operator", "trainer")}
    for command in starting(shell, "docker", "build"):
        assert (ROOT / str(option(command, "-f"))).is_file()


def test_the_result_is_fetched_from_where_the_status_says(shell: Shell) -> None:
    [fetched] = starting(shell, "aws", "s3", "cp")
    assert fetched[-2:] == [RUN, "first"]


def test_it_is_removed_as_it_was_installed(shell: Shell) -> None:
    [install], [uninstall] = starting(shell, "helm", "install"), starting(shell, "helm", "uninstall")
    assert (install[2], option(install, "--namespace")) == (uninstall[2], option(uninstall, "--namespace"))
    crd = yaml.safe_load((ROOT / "crds/finetune.dev_finetunejobs.yaml").read_text())
    assert starting(shell, "kubectl", "delete", "crd") == [["kubectl", "delete", "crd", crd["metadata"]["name"]]]
