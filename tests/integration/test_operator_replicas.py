"""Two replicas: one works, the other takes over, and nothing is done twice whatever happens to the first."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_operator.control.lease import LEASE_SECONDS, POLL_SECONDS, RENEW_DEADLINE_SECONDS
from local_platform.control_plane import ControlPlane
from local_platform.operator_process import Installed, OperatorProcess, eventually
from tests.support.fake_kubelet import World
from tests.support.pusher import Pusher

# What is promised, times four: this machine may be busy.
TAKEOVER_SECONDS = 4 * (LEASE_SECONDS + POLL_SECONDS)
RELEASE_SECONDS = 4 * 2 * POLL_SECONDS


@dataclass
class Replicas:
    """Two operators of one installation."""

    both: tuple[OperatorProcess, OperatorProcess]

    def leading(self, seconds: float = TAKEOVER_SECONDS) -> OperatorProcess:
        """Wait until one leads, and return it."""
        return eventually(lambda: next((r for r in self.both if r.runs and r.leads), None), "a leader", seconds)  # type: ignore[return-value]

    def other(self, replica: OperatorProcess) -> OperatorProcess:
        return self.both[1] if replica is self.both[0] else self.both[0]

    def start(self) -> None:
        """Start those that do not run."""
        for replica in self.both:
            if not replica.runs:
                replica.start()


@pytest.fixture(scope="module")
def shared(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    a, b = (OperatorProcess(installed, folder / f"{name}.log", pod_name=name) for name in ("operator-a", "operator-b"))
    yield Replicas((a, b))
    for replica in (a, b):
        if replica.runs:
            replica.resume()
            replica.stop()


@pytest.fixture
def replicas(shared: Replicas) -> Replicas:
    """Both run, and one leads."""
    shared.start()
    shared.leading()
    return shared


def _finish(world: World) -> None:
    """Let the job end well, from its train stage on; nothing happened twice."""
    world.end("train")
    world.pod("export", seconds=TAKEOVER_SECONDS)
    world.end("export")
    world.wait_for("Succeeded", seconds=TAKEOVER_SECONDS)
    assert len(world.items("jobs")) == 3
    assert _reported_twice(world) == []


def _reported_twice(world: World) -> list[str]:
    events = world.items("events", "--field-selector", "involvedObject.kind=FineTuneJob")
    reported = Counter(f"{e['reason']}: {e['message']}" for e in events)
    return [text for text, times in reported.items() if times > 1]


def _training(world: World) -> None:
    world.apply()
    world.end("prepare")
    world.run("train")
    eventually(lambda: "is running" in world.condition("Ready")["message"], "the operator saw the pod run")


def test_both_are_ready_and_one_leads(replicas: Replicas) -> None:
    assert [replica.answers("/readyz") for replica in replicas.both] == [True, True]
    assert sum(replica.leads for replica in replicas.both) == 1


def test_jobs_are_counted_once_over_all_replicas(replicas: Replicas, world: World) -> None:
    _training(world)
    sample = f'finetune_jobs{{namespace="{world.namespace}",phase="Training"}}'
    counts = [line for r in replicas.both for line in r.read("/metrics").splitlines() if line.startswith(sample)]
    assert counts == [f"{sample} 1.0"]


def test_when_the_leader_is_killed_the_other_continues(replicas: Replicas, world: World) -> None:
    _training(world)
    leader = replicas.leading()
    leader.kill()
    _finish(world)
    assert replicas.leading() is replicas.other(leader)


def test_a_status_that_the_leader_before_wrote_late_is_set_right(replicas: Replicas, world: World) -> None:
    _training(world)
    leader = replicas.leading()
    leader.kill()
    following = replicas.other(leader)
    sample = f'finetune_jobs{{namespace="{world.namespace}",phase="Training"}} 1.0'
    eventually(lambda: following.leads and sample in following.read("/metrics"), "its first pass", TAKEOVER_SECONDS)
    late = json.dumps({"status": {"phase": "Preparing"}})
    world.kubectl("patch", "finetunejob", world.name, "--subresource=status", "--type=merge", "-p", late)
    eventually(lambda: world.status()["phase"] == "Training", "the phase that its Job shows", TAKEOVER_SECONDS)


def test_a_leader_that_is_asked_to_end_hands_over_at_once(replicas: Replicas, world: World) -> None:
    _training(world)
    leader = replicas.leading()
    leader.stop()
    # Not released, the Lease would be the leader's for ten seconds more.
    assert not _holder(world.plane).startswith(leader.pod_name)
    assert replicas.leading(RELEASE_SECONDS) is replicas.other(leader)
    _finish(world)


def _holder(plane: ControlPlane) -> str:
    lease = plane.get("lease", "finetune-operator", "-n", "finetune-system")
    return str(lease["spec"].get("holderIdentity", ""))


def test_a_leader_that_was_paused_for_too_long_changes_nothing_and_ends(replicas: Replicas, world: World) -> None:
    _training(world)
    leader = replicas.leading()
    # The other one is away, so that all there is to do would be this one's.
    replicas.other(leader).stop()
    leader.pause()
    world.end("train")
    time.sleep(RENEW_DEADLINE_SECONDS + 1)
    before = _changes(world)
    leader.resume()
    assert leader.wait_for_end() == 1
    assert _changes(world) == before
    assert "Lease finetune-system/finetune-operator was not renewed" in leader.log.read_text()
    replicas.start()
    world.pod("export", seconds=TAKEOVER_SECONDS)


def test_a_paused_leader_wakes_up_beside_the_new_one(replicas: Replicas, world: World) -> None:
    _training(world)
    leader = replicas.leading()
    leader.pause()
    world.end("train")
    world.pod("export", seconds=TAKEOVER_SECONDS)
    leader.resume()
    assert leader.wait_for_end() == 1
    assert replicas.leading() is replicas.other(leader)
    _finish_export(world)


def _finish_export(world: World) -> None:
    world.end("export")
    world.wait_for("Succeeded", seconds=TAKEOVER_SECONDS)
    assert len(world.items("jobs")) == 3
    assert _reported_twice(world) == []


def _changes(world: World) -> dict[str, str]:
    """What an operator may write, by its version. The Job's own status is the controller's affair."""
    found = json.loads(world.kubectl("get", "finetunejobs,configmaps,events", "-o", "json"))["items"]
    ours = [o for o in found if o["kind"] != "Event" or o["involvedObject"]["kind"] == "FineTuneJob"]
    versions = {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in ours}
    return versions | {f"Job/{j['metadata']['name']}": j["metadata"]["uid"] for j in world.items("jobs")}


def test_an_outage_of_the_api_server_costs_the_lead_and_nothing_else(replicas: Replicas, world: World) -> None:
    _training(world)
    leader = replicas.leading()
    world.plane.signal("apiserver", "STOP")
    try:
        assert leader.wait_for_end(TAKEOVER_SECONDS) == 1
        assert replicas.other(leader).answers("/healthz")
    finally:
        world.plane.signal("apiserver", "CONT")
    replicas.start()
    replicas.leading()
    _finish(world)


def test_every_replica_takes_progress_and_none_turns_it_back(replicas: Replicas, world: World) -> None:
    world.apply()
    world.end("prepare")
    pod = world.run("train")
    first, second = (Pusher(world, replica, pod) for replica in replicas.both)
    token = first.token()
    assert first.push(token, sequence=1, step=20) == 200
    eventually(lambda: world.status().get("progress", {}).get("step") == 20, "the first report")
    assert second.push(token, sequence=3, step=60) == 200
    eventually(lambda: world.status()["progress"]["step"] == 60, "the report to the other replica")
    # To the first replica, whose store knows nothing of step 60, this one is news that has to be written at once.
    assert first.push(token, sequence=2, step=None, totalSteps=None, activity="Evaluating") == 200
    time.sleep(1)
    assert (world.status()["progress"]["step"], world.status()["progress"]["activity"]) == (60, "Training")


def test_a_new_leader_keeps_the_certificate(replicas: Replicas, control_plane: ControlPlane, tmp_path: Path) -> None:
    def stored() -> str:
        secret = control_plane.get("secret", "finetune-operator-tls", "-n", "finetune-system")
        return str(secret["data"]["tls.crt"])

    before = stored()
    leader = replicas.leading()
    leader.stop()
    replicas.leading()
    assert stored() == before
