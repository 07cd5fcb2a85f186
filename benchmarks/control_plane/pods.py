"""What kwok plays: nodes, and pods that run for a second and leave the results of real stages behind."""

import json
from typing import Any

from finetune_api.result import StageResult
from finetune_api.status import (
    Artifact,
    DatasetStatus,
    Effective,
    EvaluationStatus,
    MemoryStatus,
    ModelStatus,
    Parity,
    ScratchStatus,
)
from finetune_operator.names import STAGE_LABEL

RUNNING_MILLISECONDS = 1000
HOLD_LABEL = "benchmark-hold"
"""A pod with this label runs until it is deleted."""

_SHA = "5c0e0d2ca5a0a7ba3c5f7ac5a8a8bfdd1d1d9ce3dbd1d7f6f0f7a9bb0a3e4c11"
_NODES = 10
_ALLOCATABLE = {
    "cpu": "100k",
    "memory": "1P",
    "ephemeral-storage": "1P",
    "pods": "100k",
    "nvidia.com/gpu": "100k",
}

RESULTS = (
    StageResult(
        stage="prepare",
        exit_code=0,
        run_id=_SHA,
        log="team/coach/run/logs/prepare-0.log",
        dataset=DatasetStatus(examples=2000, dropped=12, holdout=100, supervised_tokens=312_000, epochs_planned="0.25"),
        model=ModelStatus(revision=_SHA, parameters=8_030_261_248, architecture="LlamaForCausalLM", template="Model"),
        memory=MemoryStatus(estimated_mib=8187),
        scratch=ScratchStatus(train_mib=18_000, export_mib=44_000),
        timings={"data": 3.1, "model": 12.4},
    ),
    StageResult(
        stage="train",
        exit_code=0,
        run_id=_SHA,
        log="team/coach/run/logs/train-0.log",
        memory=MemoryStatus(estimated_mib=8187, peak_mib=6994),
        effective=Effective(
            micro_batch_size=8,
            gradient_accumulation=1,
            attention="sdpa",
            precision="BF16",
            gradient_checkpointing="None",
            optimizer="AdamW8bit",
            gpu="NVIDIA H100 80GB",
            driver="580.159.04",
        ),
        evaluation=EvaluationStatus(
            holdout_loss_base="2.31", holdout_loss_tuned="1.07", standard_error="0.04", verdict="Better", best_step=60
        ),
        artifacts=[
            Artifact(name="adapter", type="LoRAAdapter", path="adapter/", size_bytes=167_832_240, sha256=_SHA),
        ],
        timings={"load": 39.0, "train": 94.6},
    ),
    StageResult(
        stage="export",
        exit_code=0,
        run_id=_SHA,
        log="team/coach/run/logs/export-0.log",
        artifacts=[
            Artifact(
                name="q4-k-m",
                type="GGUF",
                path="gguf/model-q4_k_m.gguf",
                size_bytes=4_920_733_888,
                sha256=_SHA,
                parity=Parity(kl="0.0123", top1="0.97", retained_gain="0.98"),
            ),
            Artifact(name="modelfile", type="Modelfile", path="gguf/Modelfile", size_bytes=912, sha256=_SHA),
        ],
        timings={"merge": 43.0, "quantize": 71.0},
    ),
)

# As kwok's own stages, kustomize/stage/pod/fast, for a single container.
_READY = """
{{ $now := Now }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
phase: Running
startTime: {{ $now | Quote }}
"""
_COMPLETE = """
{{ $now := Now }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
      message: MESSAGE
{{ end }}
phase: Succeeded
"""
_NODE = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
phase: Running
"""


def nodes() -> list[dict[str, Any]]:
    """Nodes with room for everything."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"node-{number}"},
            "status": {"allocatable": _ALLOCATABLE, "capacity": _ALLOCATABLE},
        }
        for number in range(_NODES)
    ]


def stages() -> list[dict[str, Any]]:
    """Return kwok's configuration: when a node or a pod changes, and into what."""
    alive = _expression(".metadata.deletionTimestamp", "DoesNotExist")
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    running = [
        alive,
        _expression(".status.phase", "In", "Running"),
        _expression(f'.metadata.labels["{HOLD_LABEL}"]', "DoesNotExist"),
    ]
    return [
        _stage("node", "Node", {"matchExpressions": [_expression(ready, "NotIn", "True")]}, {"statusTemplate": _NODE}),
        _stage(
            "pod-ready",
            "Pod",
            {"matchExpressions": [alive, _expression(".status.phase", "In", "Pending")]},
            {"statusTemplate": _READY},
        ),
        _stage(
            "pod-delete",
            "Pod",
            {"matchExpressions": [_expression(".metadata.deletionTimestamp", "Exists")]},
            {"delete": True},
        ),
        *(
            _stage(
                f"pod-complete-{result.stage}",
                "Pod",
                {"matchLabels": {STAGE_LABEL: result.stage}, "matchExpressions": running},
                {"statusTemplate": _COMPLETE.replace("MESSAGE", json.dumps(result.termination_message().decode()))},
                milliseconds=RUNNING_MILLISECONDS,
            )
            for result in RESULTS
        ),
    ]


def _expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


def _stage(
    name: str, kind: str, selector: dict[str, Any], following: dict[str, Any], milliseconds: int = 0
) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": selector,
            "delay": {"durationMilliseconds": milliseconds},
            "next": following,
        },
    }
