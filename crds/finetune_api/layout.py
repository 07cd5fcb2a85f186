"""The keys in the bucket, relative to `spec.output.s3.uri`. A run is complete when its manifest exists."""

from dataclasses import dataclass

from finetune_api.spec import Stage

MANIFEST = "manifest.json"
LATEST = "latest.json"
OWNER = "owner.json"
REPORT = "report.json"


@dataclass(frozen=True)
class JobLayout:
    """The folders of one FineTuneJob; every method returns a key without a leading slash."""

    namespace: str
    name: str
    uid: str

    @property
    def job(self) -> str:
        """The folder of all runs of this name."""
        return f"{self.namespace}/{self.name}"

    @property
    def latest(self) -> str:
        """Points to the newest complete run of this name."""
        return f"{self.job}/{LATEST}"

    @property
    def state(self) -> str:
        """The folder for this uid only: results of finished stages, and checkpoints."""
        return f"{self.states}/{self.uid}"

    @property
    def states(self) -> str:
        """The state folders of all jobs of the namespace, by uid."""
        return f"{self.namespace}/.runs"

    @property
    def owner(self) -> str:
        """The marker that names the cluster and the job of the state folder."""
        return f"{self.state}/{OWNER}"

    @property
    def checkpoints(self) -> str:
        """The folder of the checkpoints, one subfolder each."""
        return f"{self.state}/checkpoints"

    def index(self, run_id: str) -> str:
        """Finds a complete run of any job of this namespace."""
        return f"{self.namespace}/.index/{run_id}.json"

    def model_hashes(self, folder: str) -> str:
        """The checksums of a mounted model's files; `folder` is a hash that identifies the model's folder."""
        return f"{self.namespace}/.index/models/{folder}.json"

    def result(self, stage: Stage) -> str:
        """The StageResult that a finished stage left for the next one."""
        return f"{self.state}/{stage}.json"

    def exported(self, name: str) -> str:
        """The record of one file that export made, verified and uploaded: a retry does not make it again."""
        return f"{self.state}/export/{name}.json"

    def run(self, run_id: str) -> str:
        """The folder of one run."""
        return f"{self.job}/{run_id}"

    def log(self, run_id: str | None, stage: Stage, attempt: int, node: int = 0) -> str:
        """The log of one attempt. Before the run id is known, it is in the state folder of the uid.

        `node`: which of the pods that train together, from 0.
        """
        folder = f"{self.run(run_id)}/logs" if run_id else f"{self.state}/logs"
        return f"{folder}/{stage}-{attempt}{f'-node-{node}' if node else ''}.log"


def join_uri(base: str, *parts: str) -> str:
    """Append keys to a URI that may or may not end in a slash."""
    return "/".join([base.rstrip("/"), *(p.strip("/") for p in parts)])
