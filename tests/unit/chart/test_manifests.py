"""The rendered chart: valid for Kubernetes, and as restricted as it claims."""

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

from finetune_api import crd
from finetune_api.plan import Defaults
from finetune_api.policy import Policy
from finetune_api.references import S3Connection
from finetune_operator.options import parse
from tests.unit.chart.conftest import CHART, KUBERNETES_VERSION, Render, of_kind, run_helm

ALL_VALUES = str(CHART.parent.parent / "tests" / "unit" / "chart" / "all-values.yaml")
VARIANTS: dict[str, tuple[str, ...]] = {"defaults": (), "everything": ("-f", ALL_VALUES)}


def operator_pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    [deployment] = of_kind(manifests, "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def operator_arguments(manifests: list[dict[str, Any]]) -> list[str]:
    arguments: list[str] = operator_pod(manifests)["containers"][0]["args"]
    return arguments


def rules(manifests: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Return what the operator itself may do: the rules of roles that users get are left out."""
    roles = [role for kind in kinds for role in of_kind(manifests, kind) if not aggregated_to(role)]
    return [rule for role in roles for rule in role["rules"]]


def aggregated_to(role: dict[str, Any]) -> set[str]:
    """Return the names of Kubernetes' own roles that this one becomes a part of."""
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    labels = role["metadata"]["labels"]
    return {name.removeprefix(prefix) for name in labels if name.startswith(prefix) and labels[name] == "true"}


def test_helm_lint_finds_nothing() -> None:
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_fits_the_schema_of_kubernetes(render: Render, variant: str) -> None:
    for manifest in render(*VARIANTS[variant]):
        if manifest["kind"] != "CustomResourceDefinition":  # its schema refers to itself without end
            kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operator_understands_its_arguments(render: Render, variant: str) -> None:
    arguments = operator_arguments(render(*VARIANTS[variant]))
    options = parse(arguments, {"POD_NAMESPACE": "ops", "POD_NAME": "rel-0"})
    assert options.tls_secret_name == f"{options.service_name}-tls"


def test_defaults_of_jobs_reach_the_operator(render: Render) -> None:
    arguments = operator_arguments(render("-f", ALL_VALUES))
    options = parse(arguments, {"POD_NAMESPACE": "ops", "POD_NAME": "rel-0"})
    assert options.defaults == Defaults(
        s3=S3Connection.model_validate(
            {
                "endpoint": "https://minio.corp:9000",
                "region": "us-east-1",
                "forcePathStyle": True,
                "credentialsSecretRef": {"name": "s3"},
                "caBundle": {"configMap": {"name": "corp-ca", "key": "ca.crt"}},
            }
        ),
        hugging_face_endpoint="https://hub.corp",
        allow_cpu=True,
        policy=Policy(endpoints=["*.corp", "hub.corp:443", "10.0.0.0/8", "[fd00::1]:9000"]),
    )
    assert options.watch_namespaces == ("research", "coaches")


def test_without_a_policy_every_server_is_allowed(render: Render) -> None:
    options = parse(operator_arguments(render()), {"POD_NAMESPACE": "ops", "POD_NAME": "rel-0"})
    assert options.defaults.policy == Policy()


def test_the_crd_is_the_generated_one(render: Render) -> None:
    [found] = of_kind(render(), "CustomResourceDefinition")
    assert found["spec"] == crd.render()["spec"]


def test_the_crd_stays_when_the_chart_is_uninstalled(render: Render) -> None:
    [found] = of_kind(render(), "CustomResourceDefinition")
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_crd_goes_with_the_chart_if_asked(render: Render) -> None:
    [found] = of_kind(render("--set", "crds.keep=false"), "CustomResourceDefinition")
    assert "annotations" not in found["metadata"]


def test_the_crd_can_be_left_out(render: Render) -> None:
    assert of_kind(render("--set", "crds.enabled=false"), "CustomResourceDefinition") == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_secrets_are_touched_by_one_rule_on_one_name(render: Render, variant: str) -> None:
    manifests = render(*VARIANTS[variant])
    [secret] = of_kind(manifests, "Secret")
    assert [rule for rule in rules(manifests, "ClusterRole", "Role") if "secrets" in rule["resources"]] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [secret["metadata"]["name"]],
            "verbs": ["get", "update"],
        }
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_rule_has_a_wildcard_or_reads_logs(render: Render, variant: str) -> None:
    for rule in rules(render(*VARIANTS[variant]), "ClusterRole", "Role"):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"pods/log", "pods/exec"} & set(rule["resources"])
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])


def test_the_operator_has_exactly_the_rights_that_it_uses(render: Render) -> None:
    found: dict[str, str] = {}
    for rule in rules(render(), "ClusterRole", "Role"):
        for resource in rule["resources"]:
            name = "/".join(rule["apiGroups"]) + f" {resource}"
            found[name] = " ".join([*found.get(name, "").split(), *rule["verbs"]])
    assert found == {
        "finetune.dev finetunejobs": "delete get list watch",
        "finetune.dev finetunejobs/status": "get patch",
        "finetune.dev finetunejobs/finalizers": "update",
        "batch jobs": "create delete get list watch",
        " pods": "get list watch",
        " configmaps": "create delete get list update",
        " services": "create get",
        " events": "create list",
        " namespaces": "get",
        "kueue.x-k8s.io workloads": "list",
        "authentication.k8s.io tokenreviews": "create",
        " secrets": "get update",
        "coordination.k8s.io leases": "get update create",
    }


def test_one_namespace_alone_is_read_for_its_uid(render: Render) -> None:
    [rule] = [rule for rule in rules(render(), "ClusterRole", "Role") if "namespaces" in rule["resources"]]
    assert (rule["resourceNames"], rule["verbs"]) == (["kube-system"], ["get"])


def test_watching_some_namespaces_needs_no_cluster_wide_right_but_token_reviews(render: Render) -> None:
    manifests = render("-f", ALL_VALUES)
    assert [rule["resources"] for rule in rules(manifests, "ClusterRole")] == [["tokenreviews"]]
    namespaces = {role["metadata"]["namespace"] for role in of_kind(manifests, "Role")}
    assert namespaces == {"ops", "research", "coaches"}


def rights_of_users(manifests: list[dict[str, Any]]) -> dict[str, set[tuple[str, str]]]:
    """Return the (resource, verb) pairs that view, edit and admin gain."""
    found: dict[str, set[tuple[str, str]]] = {}
    for role in of_kind(manifests, "ClusterRole"):
        for target in aggregated_to(role):
            for rule in role["rules"]:
                assert rule["apiGroups"] == ["finetune.dev"]
                found.setdefault(target, set()).update((r, v) for r in rule["resources"] for v in rule["verbs"])
    return found


READ = {(resource, verb) for resource in ("finetunejobs", "finetunejobs/status") for verb in ("get", "list", "watch")}
WRITE = {("finetunejobs", verb) for verb in ("create", "delete", "deletecollection", "patch", "update")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_who_may_view_a_namespace_reads_its_jobs_and_who_may_edit_it_changes_them(render: Render, variant: str) -> None:
    rights = rights_of_users(render(*VARIANTS[variant]))
    assert rights == {"view": READ, "edit": READ | WRITE, "admin": READ | WRITE}


def test_the_roles_of_users_can_be_left_out(render: Render) -> None:
    assert rights_of_users(render("--set", "rbac.aggregateClusterRoles=false")) == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_binds_the_roles_of_users(render: Render, variant: str) -> None:
    manifests = render(*VARIANTS[variant])
    names = {role["metadata"]["name"] for role in of_kind(manifests, "ClusterRole") if aggregated_to(role)}
    assert names
    assert not names & {binding["roleRef"]["name"] for binding in of_kind(manifests, "ClusterRoleBinding")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_binding_names_a_role_and_the_account_that_exist(render: Render, variant: str) -> None:
    manifests = render(*VARIANTS[variant])
    [account] = of_kind(manifests, "ServiceAccount")
    for kind in ("Role", "ClusterRole"):
        names = {(r["metadata"].get("namespace"), r["metadata"]["name"]) for r in of_kind(manifests, kind)}
        for binding in of_kind(manifests, f"{kind}Binding"):
            assert (binding["metadata"].get("namespace"), binding["roleRef"]["name"]) in names
            [subject] = binding["subjects"]
            assert (subject["name"], subject["namespace"]) == (account["metadata"]["name"], "ops")


def test_the_certificate_secret_is_rendered_without_data(render: Render) -> None:
    [secret] = of_kind(render(), "Secret")
    assert not {"data", "stringData"} & set(secret)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operator_pod_meets_the_restricted_pod_security_standard(render: Render, variant: str) -> None:
    pod = operator_pod(render(*VARIANTS[variant]))
    [container] = pod["containers"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert [set(volume) - {"name"} for volume in pod["volumes"]] == [{"emptyDir"}]


def test_two_replicas_run_and_none_is_away_during_an_upgrade(render: Render) -> None:
    [deployment] = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_lease_is_read_and_written_by_its_name(render: Render, variant: str) -> None:
    manifests = render(*VARIANTS[variant])
    options = parse(operator_arguments(manifests), {"POD_NAMESPACE": "ops", "POD_NAME": "rel-0"})
    by_name, anywhere = (r for r in rules(manifests, "ClusterRole", "Role") if r["resources"] == ["leases"])
    assert (by_name["resourceNames"], by_name["verbs"]) == ([options.lease_name], ["get", "update"])
    assert anywhere["verbs"] == ["create"]


def test_a_drain_takes_one_replica_at_a_time(render: Render) -> None:
    manifests = render()
    [budget] = of_kind(manifests, "PodDisruptionBudget")
    [deployment] = of_kind(manifests, "Deployment")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]


def test_a_single_replica_has_no_disruption_budget(render: Render) -> None:
    assert of_kind(render("--set", "replicas=1"), "PodDisruptionBudget") == []


def test_replicas_prefer_different_nodes_but_share_one_if_they_must(render: Render) -> None:
    manifests = render()
    [deployment] = of_kind(manifests, "Deployment")
    anti = operator_pod(manifests)["affinity"]["podAntiAffinity"]
    [rule] = anti.pop("preferredDuringSchedulingIgnoredDuringExecution")
    assert rule["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert rule["podAffinityTerm"]["labelSelector"] == deployment["spec"]["selector"]
    assert anti == {}


def test_a_chosen_affinity_replaces_the_preference(render: Render) -> None:
    affinity = {"nodeAffinity": {"a": "b"}}
    assert operator_pod(render("--set-json", f"affinity={json.dumps(affinity)}"))["affinity"] == affinity


def test_the_service_reaches_the_pod(render: Render) -> None:
    manifests = render()
    [service] = of_kind(manifests, "Service")
    [deployment] = of_kind(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    named = {p["name"]: p["containerPort"] for p in operator_pod(manifests)["containers"][0]["ports"]}
    assert {p["port"]: named[p["targetPort"]] for p in service["spec"]["ports"]} == {8443: 8443, 8080: 8080}


@pytest.mark.parametrize(
    ("arguments", "image"),
    [
        ((), "finetune-operator:0.1.0"),
        (("--set", "image.tag=1.2.3"), "finetune-operator:1.2.3"),
        (("--set", "image.registry=reg.corp:5000/"), "reg.corp:5000/finetune-operator:0.1.0"),
        (
            ("--set", f"image.registry=reg.corp,image.tag=v1,image.digest=sha256:{'0' * 64}"),
            f"reg.corp/finetune-operator@sha256:{'0' * 64}",
        ),
    ],
)
def test_the_image_is_put_together(render: Render, arguments: tuple[str, ...], image: str) -> None:
    assert operator_pod(render(*arguments))["containers"][0]["image"] == image


def test_the_trainer_image_reaches_the_operator(render: Render) -> None:
    arguments = operator_arguments(render("--set", "trainer.image.registry=reg.corp,trainer.image.tag=v9"))
    assert "--trainer-image=reg.corp/finetune-trainer:v9" in arguments


def test_the_network_policy_lets_job_pods_in_only(render: Render) -> None:
    [policy] = of_kind(render("-f", ALL_VALUES), "NetworkPolicy")
    progress = next(rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "progress"}])
    assert progress["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/managed-by": "finetune-operator"}


def test_common_labels_are_on_every_object(render: Render) -> None:
    for manifest in render("-f", ALL_VALUES):
        assert manifest["metadata"]["labels"]["team"] == "platform", manifest["kind"]


def test_the_full_set_of_values_names_every_value() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(yaml.safe_load((CHART.parents[1] / ALL_VALUES).read_text())) == set(defaults)


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) - {"global"} == set(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_s3_values_are_checked_as_the_crd_checks_them() -> None:
    values = json.loads((CHART / "values.schema.json").read_text())["properties"]["s3"]["properties"]
    fields = S3Connection.model_json_schema(by_alias=True)["properties"]
    assert set(values) == set(fields)
    for name in ("endpoint", "region"):
        assert values[name]["pattern"] == fields[name]["anyOf"][0]["pattern"]
