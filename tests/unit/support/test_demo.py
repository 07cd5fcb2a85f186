"""The lines that the demo ends with reach its cluster and its bucket."""

import os
import subprocess
from pathlib import Path

import pytest

import demo

REACH = {"KUBECONFIG": "/a kubeconfig", "S3_ENDPOINT": "http://10.0.0.1:7070", "AWS_ACCESS_KEY_ID": "key"}
# Writes down what it was asked, and by which variables it would reach the server.
PROGRAM = '#!/bin/sh\necho "$(basename "$0") $*; $KUBECONFIG; $AWS_ACCESS_KEY_ID"\n'


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("local", [True, False])
def test_they_pass_the_cluster_and_the_server_to_kubectl_and_aws(tmp_path: Path, local: bool) -> None:
    exports = "".join(f"export {name}='{value}'\n" for name, value in REACH.items())
    write(tmp_path / "hack/cluster", f"#!/bin/sh\n[ \"$1\" = env ] && cat <<'END'\n{exports}END\n")
    for program in ("kubectl", "aws"):
        write(tmp_path / "bin" / program, PROGRAM)
    variables = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **({} if local else REACH)}
    found = [
        subprocess.check_output(["bash", "-euc", line], cwd=tmp_path, env=variables, text=True).strip()
        for line in demo.reach_lines(local=local)
    ]
    assert found == [
        "kubectl get ftj,jobs,pods -n demo; /a kubeconfig; key",
        "aws s3 ls --recursive --endpoint-url http://10.0.0.1:7070 s3://results/demo/; /a kubeconfig; key",
    ]
