"""Pushes progress as a trainer pod does, with a token as the kubelet gets it."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from finetune_api.progress import TOKEN_AUDIENCE
from local_platform.operator_process import SERVICE_HOST, OperatorProcess
from tests.support.fake_kubelet import World


class _ToLocalhost(http.client.HTTPSConnection):
    """What the cluster's DNS and Service do for a pod."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(SERVICE_HOST, port, timeout=60, context=context)
        self._trust = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.sock = self._trust.wrap_socket(plain, server_hostname=SERVICE_HOST)


@dataclass
class Pusher:
    world: World
    operator: OperatorProcess
    pod: dict[str, Any]

    def token(self, audience: str = TOKEN_AUDIENCE, pod: dict[str, Any] | None = None) -> str:
        bound = (pod or self.pod)["metadata"]
        reference = {"apiVersion": "v1", "kind": "Pod", "name": bound["name"], "uid": bound["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "boundObjectRef": reference},
        }
        path = self.world.path("serviceaccounts", "default", "token")
        token: str = self.world.rest.call("POST", path, request)["status"]["token"]
        return token

    def push(self, token: str, name: str | None = None, **members: Any) -> int:
        """Push as the trainer does, trusting only what the job's ConfigMap holds."""
        found = self.world.items("configmaps", "-l", f"finetune.dev/job={self.world.name}")
        [config_map] = [c for c in found if c["metadata"]["name"].endswith("-ca")]
        context = ssl.create_default_context(cadata=config_map["data"]["ca.crt"])
        connection = _ToLocalhost(self.operator.progress_port, context)
        report = {"stage": "train", "attempt": 0, "activity": "Training", "step": 37, "totalSteps": 60, **members}
        path = f"/v1/namespaces/{self.world.namespace}/finetunejobs/{name or self.world.name}/progress"
        connection.request("POST", path, json.dumps(report), {"Authorization": f"Bearer {token}"})
        status = connection.getresponse().status
        connection.close()
        return status
