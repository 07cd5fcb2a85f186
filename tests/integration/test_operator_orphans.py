"""What `kubectl delete --cascade=orphan` leaves is named while it runs, and deleted once a successor has started."""

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World


def test_an_orphan_is_named_and_what_it_leaves_is_deleted(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.run("prepare")
    [left] = world.items("jobs")
    name, uid = left["metadata"]["name"], world.job()["metadata"]["uid"]
    world.kubectl("delete", "ftj", world.name, "--cascade=orphan")
    world.apply()
    remedy = f"delete it: kubectl delete job {name} -n {world.namespace}"
    eventually(lambda: remedy in world.condition("Ready").get("message", ""), "the orphan is named")
    world.end("prepare", exit_code=65)

    def successor() -> bool:
        return [j["metadata"]["name"] for j in world.items("jobs")] not in ([], [name])

    eventually(successor, "the successor has started", 60)
    selector = f"finetune.dev/job-uid={uid}"
    eventually(lambda: not world.items("jobs,configmaps", "-l", selector), "what the orphan left is gone", 60)
