"""The chart on a real API server: installed, upgraded and used as a user would."""

import base64
import re
import time
from collections.abc import Iterator

import pytest

from local_platform.commands import ROOT
from local_platform.control_plane import ControlPlane

CHART = str(ROOT / "charts" / "finetune-operator")
ACCOUNT = "system:serviceaccount:ops:rel-finetune-operator"
FINETUNEJOBS = "finetunejobs.finetune.dev"


def helm(plane: ControlPlane, *arguments: str) -> str:
    done = plane.run("helm", *arguments, "--namespace", "ops")
    assert done.returncode == 0, done.stderr
    return done.stdout


def can(
    plane: ControlPlane, verb: str, resource: str, namespace: str, subresource: str = "", user: str = ACCOUNT
) -> bool:
    """Whether the operator, or another user, may; `resource` is a type or type/name."""
    done = plane.run(
        *("kubectl", "auth", "can-i", verb, resource, "--as", user, "-n", namespace),
        *(("--subresource", subresource) if subresource else ()),
    )
    assert done.stdout.strip() in ("yes", "no"), done.stderr
    return done.stdout.strip() == "yes"


@pytest.fixture(scope="module")
def release(control_plane: ControlPlane) -> Iterator[str]:
    """The notes of a fresh release; the CRD that is there becomes the chart's."""
    yield helm(control_plane, "install", "rel", CHART, "--create-namespace", "--take-ownership")
    helm(control_plane, "uninstall", "rel")
    control_plane.kubectl("get", "crd", "finetunejobs.finetune.dev")  # kept


def test_the_sample_in_the_notes_is_accepted(control_plane: ControlPlane, release: str) -> None:
    [sample] = re.findall(r"cat <<'EOF' \| kubectl apply -f -\n(.*?)\nEOF\n", release, re.DOTALL)
    done = control_plane.run("kubectl", "apply", "--dry-run=server", "-f", "-", stdin=sample)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_upgrade_keeps_the_certificate_that_the_operator_stored(control_plane: ControlPlane, release: str) -> None:
    data = base64.b64encode(b"certificate").decode()
    patch = f'{{"data": {{"tls.crt": "{data}"}}}}'
    control_plane.kubectl("patch", "secret", "rel-finetune-operator-tls", "-n", "ops", "--type=merge", "-p", patch)
    helm(control_plane, "upgrade", "rel", CHART, "--set", "workers=2")
    assert control_plane.get("secret", "rel-finetune-operator-tls", "-n", "ops")["data"] == {"tls.crt": data}


@pytest.mark.parametrize(
    ("verb", "resource", "subresource"),
    [
        ("watch", "finetunejobs.finetune.dev", ""),
        ("patch", "finetunejobs.finetune.dev", "status"),
        ("create", "jobs.batch", ""),
        ("delete", "jobs.batch", ""),
        ("delete", "configmaps", ""),
        ("delete", "finetunejobs.finetune.dev", ""),
        ("list", "pods", ""),
        ("create", "configmaps", ""),
        ("create", "services", ""),
        ("get", "services", ""),
        ("create", "events", ""),
        ("create", "tokenreviews.authentication.k8s.io", ""),
    ],
)
def test_the_operator_may_do_its_work_in_any_namespace(
    control_plane: ControlPlane, release: str, verb: str, resource: str, subresource: str
) -> None:
    assert can(control_plane, verb, resource, "default", subresource)


@pytest.mark.parametrize(
    ("verb", "resource", "subresource"),
    [
        ("get", "secrets", ""),
        ("list", "secrets", ""),
        ("get", "pods", "log"),
        ("create", "pods", "exec"),
        ("create", "pods", ""),
        ("patch", "finetunejobs.finetune.dev", ""),
        ("deletecollection", "finetunejobs.finetune.dev", ""),
        ("deletecollection", "jobs.batch", ""),
        ("patch", "jobs.batch", ""),
        ("delete", "pods", ""),
        ("list", "services", ""),
        ("delete", "services", ""),
        ("patch", "services", ""),
        ("create", "rolebindings.rbac.authorization.k8s.io", ""),
        ("create", "serviceaccounts", "token"),
    ],
)
def test_the_operator_may_not_do_more(
    control_plane: ControlPlane, release: str, verb: str, resource: str, subresource: str
) -> None:
    assert not can(control_plane, verb, resource, "default", subresource)


def test_the_operator_reads_one_secret_of_its_own_namespace(control_plane: ControlPlane, release: str) -> None:
    assert can(control_plane, "get", "secrets/rel-finetune-operator-tls", "ops")
    assert not can(control_plane, "get", "secrets/other", "ops")
    assert not can(control_plane, "list", "secrets", "ops")


def test_the_operator_writes_one_lease_of_its_own_namespace(control_plane: ControlPlane, release: str) -> None:
    assert can(control_plane, "update", "leases.coordination.k8s.io/rel-finetune-operator", "ops")
    assert can(control_plane, "create", "leases.coordination.k8s.io", "ops")
    assert not can(control_plane, "update", "leases.coordination.k8s.io/other", "ops")
    assert not can(control_plane, "create", "leases.coordination.k8s.io", "default")


@pytest.fixture(scope="module")
def users(control_plane: ControlPlane, release: str) -> None:
    """One user for each of Kubernetes' own roles, in one namespace, once these have what the chart adds."""
    control_plane.kubectl("create", "namespace", "gym")
    for role in ("view", "edit", "admin"):
        control_plane.kubectl("create", "rolebinding", role, "-n", "gym", f"--clusterrole={role}", f"--user={role}er")
    # The controller manager puts them together.
    while not all(can(control_plane, "get", FINETUNEJOBS, "gym", user=f"{r}er") for r in ("view", "edit", "admin")):
        time.sleep(0.2)
    while not all(can(control_plane, "create", FINETUNEJOBS, "gym", user=f"{r}er") for r in ("edit", "admin")):
        time.sleep(0.2)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("user", "may", "may_not"),
    [
        ("viewer", "get list watch", "create patch update delete deletecollection"),
        ("editer", "get list watch create patch update delete deletecollection", ""),
        ("adminer", "get list watch create patch update delete deletecollection", ""),
    ],
)
def test_the_roles_of_a_namespace_reach_its_finetunejobs(
    control_plane: ControlPlane, user: str, may: str, may_not: str
) -> None:
    for verb in may.split():
        assert can(control_plane, verb, FINETUNEJOBS, "gym", user=user), verb
        assert not can(control_plane, verb, FINETUNEJOBS, "default", user=user), verb
    for verb in may_not.split():
        assert not can(control_plane, verb, FINETUNEJOBS, "gym", user=user), verb


@pytest.mark.usefixtures("users")
def test_nobody_but_the_operator_writes_a_status(control_plane: ControlPlane) -> None:
    for role in ("view", "edit", "admin"):
        assert can(control_plane, "get", FINETUNEJOBS, "gym", "status", user=f"{role}er")
        assert not can(control_plane, "patch", FINETUNEJOBS, "gym", "status", user=f"{role}er")


def test_the_operator_pod_is_admitted_where_pod_security_is_restricted(
    control_plane: ControlPlane, release: str
) -> None:
    control_plane.kubectl("label", "namespace", "ops", "pod-security.kubernetes.io/enforce=restricted")
    deployment = control_plane.get("deployment", "rel-finetune-operator", "-n", "ops")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": "ops"},
        "spec": deployment["spec"]["template"]["spec"],
    }
    done = control_plane.apply(pod, "--dry-run=server")
    assert (done.returncode, done.stderr) == (0, "")
