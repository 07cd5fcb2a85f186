"""What the API server takes and refuses, and the very sentence that a user reads from `kubectl apply`."""

from typing import Any

import pytest

from finetune_api import PLURAL
from local_platform import rest
from local_platform.control_plane import ControlPlane
from local_platform.rest import RefusedError
from tests.integration.api.manifests import S3_MODEL, S3_SOURCE, changed, smallest

HTTP: dict[str, Any] = {"url": "https://files.corp/a/train.csv?v=1", "sha256": "0a" * 32}
PLACES = "exactly one of configMap, s3, persistentVolumeClaim, huggingFace, http must be set"

VALID: dict[str, dict[str, Any]] = {
    "smallest": {},
    "model-from-hub": {"model": {"huggingFace": {"repository": "unsloth/llama-3-8b-bnb-4bit"}}},
    "model-from-hub-with-token": {
        "model": {
            "huggingFace": {
                "repository": "meta-llama/Llama-3.1-8B",
                "revision": "refs/pr/7",
                "tokenSecretRef": {"name": "hf", "key": "token"},
            }
        }
    },
    "model-from-volume": {"model": {"persistentVolumeClaim": {"claimName": "models", "path": "llama-3-8b"}}},
    "model-in-16-bit": {"model.quantization": "None", "model.maxSequenceLength": 4096},
    "source-from-config-map": {"dataset.sources": [{"configMap": {"name": "rows", "key": "train.jsonl"}}]},
    "source-from-volume": {"dataset.sources": [{"persistentVolumeClaim": {"claimName": "d", "path": "a/b.jsonl"}}]},
    "sixteen-sources": {"dataset.sources": [S3_SOURCE] * 16},
    "source-with-checksum": {"dataset.sources": [{"s3": {"uri": "s3://data/t.jsonl", "sha256": "0a" * 32}}]},
    "epochs": {"training": {"epochs": 3}},
    "all-hyper-parameters": {
        "training": {
            "lora": {"rank": 32, "alpha": 64, "dropout": "0.05", "targetModules": ["q_proj"], "useRSLoRA": True},
            "batchSize": 16,
            "microBatchSize": 4,
            "maxSteps": 100,
            "learningRate": "1e-5",
            "learningRateSchedule": "Cosine",
            "warmupSteps": 0,
            "weightDecay": "0",
            "maxGradNorm": "0.3",
            "optimizer": "AdamW",
            "precision": "BF16",
            "gradientCheckpointing": "None",
            "trainOnResponsesOnly": False,
            "seed": 0,
            "checkpoint": {"everySteps": 20},
        }
    },
    "korean-prompts": {"evaluation": {"prompts": ["벤치프레스 할 때 손목이 너무 아파."], "maxNewTokens": 64}},
    "gguf": {"export": {"gguf": ["Q8_0", "Q4_K_M"]}},
    "s3-with-everything": {
        "output.s3": {
            "uri": "s3://results/tuned/",
            "endpoint": "https://minio.corp:9000",
            "region": "us-east-1",
            "forcePathStyle": True,
            "credentialsSecretRef": {"name": "s3"},
            "caBundle": {"configMap": {"name": "corp-ca", "key": "ca.crt"}},
        }
    },
    "resources-as-numbers-and-strings": {"compute.resources.train": {"limits": {"cpu": 4, "memory": "32Gi"}}},
    "everything-of-compute": {
        "compute": {
            "accelerator": {"extendedResource": {"name": "amd.com/gpu"}},
            "scratch": {"size": "100Gi"},
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "research",
            "runtimeClassName": "nvidia",
            "serviceAccountName": "trainer",
            "imagePullSecrets": [{"name": "registry"}],
            "fsGroup": 1000,
            "podLabels": {"team": "coach"},
            "podAnnotations": {"note": "any text"},
        }
    },
    "another-scheduler": {"scheduling": {"schedulerName": "volcano"}},
    "no-retries": {"retries": {"maximum": 0}},
    "dpo": {"training": {"method": "DPO", "dpo": {"beta": "0.3"}}, "dataset.format": "Preference"},
    "orpo": {"training": {"method": "ORPO", "orpo": {"beta": "0.3"}}, "dataset.format": "Auto"},
    "kto": {
        "training": {"method": "KTO", "kto": {"desirableWeight": "1.5", "undesirableWeight": "0.5"}, "batchSize": 2},
        "dataset.format": "Binary",
    },
    "settings-of-sft-alone": {"training": {"neftuneNoiseAlpha": "5", "trainOnResponsesOnly": False}},
    "later-hyper-parameters": {
        "training": {"warmupRatio": "0.03", "adamBeta2": "0.95", "keep": "Last", "earlyStoppingPatience": 3}
    },
    "adapter-from-bucket": {"model.adapter": {"s3": {"uri": "s3://results/default/first/adapter/"}}},
    "adapter-of-a-job": {"model.adapter": {"fineTuneJobRef": {"name": "first"}}},
    "every-place-of-a-source": {
        "dataset.sources": [
            {"http": HTTP, "format": "ShareGPT"},
            {
                "huggingFace": {
                    "repository": "org/rows",
                    "path": "data/train.parquet",
                    "revision": "v1.0",
                    "endpoint": "https://hub.corp",
                    "tokenSecretRef": {"name": "hf", "key": "token"},
                }
            },
        ]
    },
    "all-of-dataset": {
        "dataset.format": "Messages",
        "dataset.columns": {"instruction": "질문", "output": "답변"},
        "dataset.templateRef": {"name": "template", "key": "chat.jinja"},
        "dataset.chatTemplateKwargs": {"enable_thinking": "false"},
        "dataset.checks": {"duplicates": "Keep", "truncation": "Fail"},
        "dataset.holdout": {"sources": [{"http": HTTP}] * 4},
    },
    "gate": {"evaluation.gate": {"holdoutLoss": "MustImprove", "onMiss": "Fail"}},
    "gate-by-default": {"evaluation.gate": {}},
    "no-reuse": {"output.reuse": "Never"},
    "mlflow": {
        "tracking": {
            "mlflow": {
                "uri": "http://mlflow.corp:5000",
                "experiment": "코치",
                "credentialsSecretRef": {"name": "mlflow"},
            }
        }
    },
    "memory-of-the-gpu": {"compute.accelerator": {"memoryMiB": 16000}},
}

_UNCHECKED = (
    "* <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)

# Each: changes to the smallest job, then the sentence after `The FineTuneJob "coach" is invalid: `. Where the API
# server adds the line above, the sentence stands between.
INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "two-models": (
        {"model": {**S3_MODEL, "huggingFace": {"repository": "a/b"}}},
        "spec.model: Invalid value: exactly one of huggingFace, s3, persistentVolumeClaim must be set",
    ),
    "no-model-source": (
        {"model": {"quantization": "NF4"}},
        "spec.model: Invalid value: exactly one of huggingFace, s3, persistentVolumeClaim must be set",
    ),
    "two-places-of-a-source": (
        {"dataset.sources": [{**S3_SOURCE, "configMap": {"name": "a", "key": "b"}}]},
        f"spec.dataset.sources[0]: Invalid value: {PLACES}",
    ),
    "url-as-repository": (
        {"model": {"huggingFace": {"repository": "https://hub.corp/unsloth/llama"}}},
        'spec.model.huggingFace.repository: Invalid value: "https://hub.corp/unsloth/llama": '
        "must be <owner>/<name> on the hub, not a URL or a path",
    ),
    "climbing-revision": (
        {"model": {"huggingFace": {"repository": "a/b", "revision": "refs/../x"}}},
        'spec.model.huggingFace.revision: Invalid value: "refs/../x": must be a branch, a tag or a commit',
    ),
    "http-uri": (
        {"output.s3.uri": "https://minio.corp/results"},
        'spec.output.s3.uri: Invalid value: "https://minio.corp/results": '
        "must be s3://<bucket> or s3://<bucket>/<folder>/",
    ),
    "folder-as-dataset": (
        {"dataset.sources": [{"s3": {"uri": "s3://data/"}}]},
        'spec.dataset.sources[0].s3.uri: Invalid value: "s3://data/": '
        "must be s3://<bucket>/<key> of one file, not a folder",
    ),
    "endpoint-with-path": (
        {"output.s3.endpoint": "https://minio.corp/s3"},
        'spec.output.s3.endpoint: Invalid value: "https://minio.corp/s3": '
        "must be http(s)://<host>[:<port>], without a path",
    ),
    "endpoint-with-password": (
        {"output.s3.endpoint": "https://user:word@minio.corp"},
        'spec.output.s3.endpoint: Invalid value: "https://user:word@minio.corp": '
        "must be http(s)://<host>[:<port>], without a path",
    ),
    "bad-checksum": (
        {"dataset.sources": [{"s3": {"uri": "s3://data/t.jsonl", "sha256": "ABC"}}]},
        'spec.dataset.sources[0].s3.sha256: Invalid value: "ABC": must be 64 hexadecimal digits in lower case',
    ),
    "climbing-path": (
        {"model": {"persistentVolumeClaim": {"claimName": "models", "path": "a/../../etc"}}},
        'spec.model.persistentVolumeClaim.path: Invalid value: "a/../../etc": '
        "must be relative to the root of the volume: no leading '/' and no '..'",
    ),
    "absolute-path": (
        {"dataset.sources": [{"persistentVolumeClaim": {"claimName": "d", "path": "/etc/passwd"}}]},
        'spec.dataset.sources[0].persistentVolumeClaim.path: Invalid value: "/etc/passwd": '
        "must be relative to the root of the volume: no leading '/' and no '..'",
    ),
    "volume-without-file": (
        {"dataset.sources": [{"persistentVolumeClaim": {"claimName": "d"}}]},
        "spec.dataset.sources[0]: Invalid value: persistentVolumeClaim.path must name the file",
    ),
    "bad-claim-name": (
        {"model": {"persistentVolumeClaim": {"claimName": "My_Claim"}}},
        'spec.model.persistentVolumeClaim.claimName: Invalid value: "My_Claim": '
        "must be the name of an object: lower-case letters, digits, '-' and '.'",
    ),
    "bad-key": (
        {"dataset.sources": [{"configMap": {"name": "rows", "key": "a/b"}}]},
        'spec.dataset.sources[0].configMap.key: Invalid value: "a/b": '
        "must be a key: letters, digits, '-', '_' and '.'",
    ),
    "bad-source-name": (
        {"dataset.sources": [{**S3_SOURCE, "name": "My Data"}]},
        "spec.dataset.sources[0].name: Invalid value: \"My Data\": must be lower-case letters, digits and '-'",
    ),
    "learning-rate-in-words": (
        {"training.learningRate": "small"},
        'spec.training.learningRate: Invalid value: "small": '
        'must be a decimal number in quotes, such as "2e-4" or "0.05"',
    ),
    "learning-rate-too-high": (
        {"training.learningRate": "2"},
        'spec.training.learningRate: Invalid value: "2": must be above 0 and at most 1',
    ),
    "learning-rate-zero": (
        {"training.learningRate": "0.0"},
        'spec.training.learningRate: Invalid value: "0.0": must be above 0 and at most 1',
    ),
    "dropout-of-all": (
        {"training.lora.dropout": "1.0"},
        'spec.training.lora.dropout: Invalid value: "1.0": must be at least 0 and below 1',
    ),
    "weight-decay-too-high": (
        {"training.weightDecay": "1.5"},
        'spec.training.weightDecay: Invalid value: "1.5": must be at least 0 and at most 1',
    ),
    "no-gradient": (
        {"training.maxGradNorm": "0"},
        'spec.training.maxGradNorm: Invalid value: "0": must be above 0 and at most 1000000',
    ),
    "micro-batch-does-not-divide": (
        {"training": {"batchSize": 8, "microBatchSize": 3}},
        "spec.training: Invalid value: batchSize must be a multiple of microBatchSize",
    ),
    "micro-batch-does-not-divide-the-default": (
        {"training": {"microBatchSize": 3}},
        "spec.training: Invalid value: batchSize must be a multiple of microBatchSize",
    ),
    "steps-and-epochs": (
        {"training": {"maxSteps": 60, "epochs": 1}},
        "spec.training: Invalid value: at most one of maxSteps, epochs may be set",
    ),
    "two-checkpoint-intervals": (
        {"training.checkpoint": {"everySeconds": 60, "everySteps": 5}},
        "spec.training.checkpoint: Invalid value: at most one of everySeconds, everySteps may be set",
    ),
    "bad-layer-name": (
        {"training.lora.targetModules": ["q-proj"]},
        'spec.training.lora.targetModules[0]: Invalid value: "q-proj": must be the name of a layer, such as q_proj',
    ),
    "gpu-in-resources": (
        {"compute.resources.train": {"limits": {"nvidia.com/gpu": 1}}},
        "spec.compute.resources.train.limits: Invalid value: "
        "may set cpu, memory and ephemeral-storage only; the GPU is set by compute.accelerator",
    ),
    "bad-quantity": (
        {"compute.resources.train": {"limits": {"memory": "32 GB"}}},
        'spec.compute.resources.train.limits[memory]: Invalid value: "32 GB": '
        "must be a quantity such as 500m, 4 or 32Gi",
    ),
    "bad-device": (
        {"compute.accelerator": {"extendedResource": {"name": "gpu"}}},
        'spec.compute.accelerator.extendedResource.name: Invalid value: "gpu": '
        "must be <domain>/<device>, such as nvidia.com/gpu",
    ),
    "no-gpu": (
        {"compute.accelerator": {"extendedResource": {"count": 0}}},
        "spec.compute.accelerator.extendedResource.count: Invalid value: 0: "
        "spec.compute.accelerator.extendedResource.count in body should be greater than or equal to 1",
    ),
    "batch-that-gpus-cannot-share": (
        {"compute.accelerator": {"extendedResource": {"count": 3}}},
        "spec: Invalid value: training.batchSize must be a multiple of compute.nodes times "
        "compute.accelerator.extendedResource.count",
    ),
    "batch-that-gpus-of-several-nodes-cannot-share": (
        {"compute": {"nodes": 3, "accelerator": {"extendedResource": {"count": 4}}}},
        "spec: Invalid value: training.batchSize must be a multiple of compute.nodes times "
        "compute.accelerator.extendedResource.count",
    ),
    "several-nodes-with-dpo": (
        {"compute": {"nodes": 2}, "dataset.format": "Preference", "training": {"method": "DPO"}},
        "spec: Invalid value: methods DPO, ORPO and KTO train on one GPU; leave compute.nodes and "
        "compute.accelerator.extendedResource.count out",
    ),
    "too-many-nodes": (
        {"compute": {"nodes": 17}, "training": {"batchSize": 17}},
        "spec.compute.nodes: Invalid value: 17: spec.compute.nodes in body should be less than or equal to 16",
    ),
    "micro-batch-above-a-gpus-share": (
        {"compute.accelerator": {"extendedResource": {"count": 4}}, "training": {"batchSize": 8, "microBatchSize": 4}},
        "spec: Invalid value: training.batchSize must be a multiple of training.microBatchSize times "
        "compute.nodes times compute.accelerator.extendedResource.count",
    ),
    "dpo-settings-with-sft": (
        {"training": {"dpo": {"beta": "0.1"}}},
        "spec.training: Invalid value: dpo has the settings of method DPO, which is not the method of this job",
    ),
    "kto-settings-with-dpo": (
        {"training": {"method": "DPO", "kto": {}}},
        "spec.training: Invalid value: kto has the settings of method KTO, which is not the method of this job",
    ),
    "orpo-settings-with-kto": (
        {"training": {"method": "KTO", "orpo": {}}},
        "spec.training: Invalid value: orpo has the settings of method ORPO, which is not the method of this job",
    ),
    "neftune-with-dpo": (
        {"training": {"method": "DPO", "neftuneNoiseAlpha": "5"}},
        "spec.training: Invalid value: neftuneNoiseAlpha is for method SFT alone; leave it out",
    ),
    "responses-only-with-orpo": (
        {"training": {"method": "ORPO", "trainOnResponsesOnly": True}},
        "spec.training: Invalid value: trainOnResponsesOnly is for method SFT alone; leave it out",
    ),
    "kto-with-single-examples": (
        {"training": {"method": "KTO", "batchSize": 1}},
        "spec.training: Invalid value: method KTO compares the examples of a step with one another; "
        "batchSize must be at least 2",
    ),
    "preferences-with-sft": (
        {"dataset.format": "Preference"},
        "spec: Invalid value: dataset.format Preference is for methods DPO and ORPO, and Binary for KTO; "
        "set training.method",
    ),
    "binary-with-sft": (
        {"dataset.format": "Binary", "training": {"method": "SFT"}},
        "spec: Invalid value: dataset.format Preference is for methods DPO and ORPO, and Binary for KTO; "
        "set training.method",
    ),
    "binary-with-dpo": (
        {"dataset.format": "Binary", "training": {"method": "DPO"}},
        "spec: Invalid value: methods DPO and ORPO need dataset.format Preference",
    ),
    "alpaca-with-kto": (
        {"dataset.format": "Alpaca", "training": {"method": "KTO"}},
        "spec: Invalid value: method KTO needs dataset.format Binary",
    ),
    "beta-zero": (
        {"training": {"method": "DPO", "dpo": {"beta": "0"}}},
        'spec.training.dpo.beta: Invalid value: "0": must be above 0 and at most 10',
    ),
    "weight-zero": (
        {"training": {"method": "KTO", "kto": {"desirableWeight": "0"}}},
        'spec.training.kto.desirableWeight: Invalid value: "0": must be above 0 and at most 100',
    ),
    "two-warm-ups": (
        {"training": {"warmupSteps": 5, "warmupRatio": "0.03"}},
        "spec.training: Invalid value: at most one of warmupSteps, warmupRatio may be set",
    ),
    "warm-up-of-more-than-half": (
        {"training.warmupRatio": "0.6"},
        'spec.training.warmupRatio: Invalid value: "0.6": must be at most 0.5',
    ),
    "beta2-of-one": (
        {"training.adamBeta2": "1"},
        'spec.training.adamBeta2: Invalid value: "1": must be at least 0.5 and below 1',
    ),
    "two-templates": (
        {"dataset.promptTemplate": "Auto", "dataset.templateRef": {"name": "t", "key": "chat.jinja"}},
        "spec.dataset: Invalid value: at most one of promptTemplate, templateRef may be set",
    ),
    "holdout-by-percent-and-sources": (
        {"dataset.holdout": {"percent": 5, "sources": [S3_SOURCE]}},
        "spec.dataset.holdout: Invalid value: at most one of percent, sources may be set",
    ),
    "holdout-source-in-two-places": (
        {"dataset.holdout": {"sources": [{**S3_SOURCE, "http": HTTP}]}},
        f"spec.dataset.holdout.sources[0]: Invalid value: {PLACES}",
    ),
    "unknown-column": (
        {"dataset.columns": {"question": "질문"}},
        "spec.dataset.columns: Invalid value: the fields that can be mapped are instruction, input, output, system, "
        "messages, conversations, prompt, completion, text, chosen, rejected, label",
    ),
    "adapter-in-two-places": (
        {"model.adapter": {"s3": {"uri": "s3://results/first/"}, "fineTuneJobRef": {"name": "first"}}},
        "spec.model.adapter: Invalid value: exactly one of s3, fineTuneJobRef must be set",
    ),
    "adapter-nowhere": (
        {"model.adapter": {}},
        "spec.model.adapter: Invalid value: exactly one of s3, fineTuneJobRef must be set",
    ),
    "url-with-password": (
        {"dataset.sources": [{"http": {**HTTP, "url": "https://user:word@files.corp/a.csv"}}]},
        'spec.dataset.sources[0].http.url: Invalid value: "https://user:word@files.corp/a.csv": '
        "must be http(s)://<host>/<path> of one file, without user and password",
    ),
    "url-of-a-folder": (
        {"dataset.sources": [{"http": {**HTTP, "url": "https://files.corp/a/"}}]},
        'spec.dataset.sources[0].http.url: Invalid value: "https://files.corp/a/": '
        "must be http(s)://<host>/<path> of one file, without user and password",
    ),
    "url-of-another-scheme": (
        {"dataset.sources": [{"http": {**HTTP, "url": "file:///etc/passwd"}}]},
        'spec.dataset.sources[0].http.url: Invalid value: "file:///etc/passwd": '
        "must be http(s)://<host>/<path> of one file, without user and password",
    ),
    "dataset-repository-as-url": (
        {"dataset.sources": [{"huggingFace": {"repository": "https://hub.corp/a/b", "path": "a.csv"}}]},
        'spec.dataset.sources[0].huggingFace.repository: Invalid value: "https://hub.corp/a/b": '
        "must be <owner>/<name> on the hub, not a URL or a path",
    ),
    "climbing-path-in-a-repository": (
        {"dataset.sources": [{"huggingFace": {"repository": "a/b", "path": "../a.csv"}}]},
        'spec.dataset.sources[0].huggingFace.path: Invalid value: "../a.csv": '
        "must be relative to the root of the volume: no leading '/' and no '..'",
    ),
    "mlflow-with-path": (
        {"tracking": {"mlflow": {"uri": "http://mlflow.corp/api"}}},
        'spec.tracking.mlflow.uri: Invalid value: "http://mlflow.corp/api": '
        "must be http(s)://<host>[:<port>], without a path",
    ),
    "own-label": (
        {"compute.podLabels": {"finetune.dev/job": "other"}},
        "spec.compute.podLabels: Invalid value: must not set a key that the operator or Kubernetes sets itself",
    ),
}

INVALID_BY_TYPE: dict[str, tuple[dict[str, Any], str]] = {
    "learning-rate-as-number": (
        {"training.learningRate": 2e-4},
        'spec.training.learningRate: Invalid value: "number": '
        'spec.training.learningRate in body must be of type string: "number"',
    ),
    "unknown-quantization": (
        {"model.quantization": "INT8"},
        'spec.model.quantization: Unsupported value: "INT8": supported values: "NF4", "None"',
    ),
    "unknown-gguf-type": (
        {"export.gguf": ["Q4_0"]},
        'spec.export.gguf[0]: Unsupported value: "Q4_0": '
        'supported values: "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K", '
        '"IQ4_XS", "IQ3_M", "IQ2_M"',
    ),
    "original-model-and-trained-base": (
        {"export": {"gguf": ["F16"], "mergeBase": "Trained", "originalModel": {"s3": {"uri": "s3://models/base"}}}},
        "spec.export: Invalid value: originalModel is what mergeBase Original merges into; leave one of the two out",
    ),
    "original-model-in-no-place": (
        {"export": {"gguf": ["F16"], "originalModel": {}}},
        "spec.export.originalModel: Invalid value: exactly one of huggingFace, s3 must be set",
    ),
    "gguf-type-twice": (
        {"export.gguf": ["Q8_0", "Q8_0"]},
        'spec.export.gguf[1]: Duplicate value: "Q8_0"',
    ),
    "no-sources": (
        {"dataset.sources": []},
        "spec.dataset.sources: Invalid value: 0: spec.dataset.sources in body should have at least 1 items",
    ),
    "seventeen-sources": (
        {"dataset.sources": [S3_SOURCE] * 17},
        "spec.dataset.sources: Too many: 17: must have at most 16 items",
    ),
    "web-file-without-checksum": (
        {"dataset.sources": [{"http": {"url": HTTP["url"]}}]},
        "spec.dataset.sources[0].http.sha256: Required value",
    ),
    "five-holdout-sources": (
        {"dataset.holdout": {"sources": [S3_SOURCE] * 5}},
        "spec.dataset.holdout.sources: Too many: 5: must have at most 4 items",
    ),
    "unknown-method": (
        {"training.method": "GRPO"},
        'spec.training.method: Unsupported value: "GRPO": supported values: "SFT", "DPO", "ORPO", "KTO"',
    ),
    "memory-in-gib": (
        {"compute.accelerator": {"memoryMiB": 16}},
        "spec.compute.accelerator.memoryMiB: Invalid value: 16: "
        "spec.compute.accelerator.memoryMiB in body should be greater than or equal to 1024",
    ),
    "no-output": ({"output": None}, "spec.output: Required value"),
    "rank-zero": (
        {"training.lora.rank": 0},
        "spec.training.lora.rank: Invalid value: 0: "
        "spec.training.lora.rank in body should be greater than or equal to 1",
    ),
    "long-prompt": (
        {"evaluation.prompts": ["가" * 2001]},
        "spec.evaluation.prompts[0]: Too long: may not be more than 2000 bytes",
    ),
}


def _create(plane: ControlPlane, manifest: dict[str, Any]) -> dict[str, Any]:
    """Ask the API server as `kubectl apply --dry-run=server` does."""
    path = rest.path(PLURAL, manifest["metadata"]["namespace"])
    return plane.rest.call("POST", path, manifest, dryRun="All", fieldValidation="Strict")


def _refusal(plane: ControlPlane, manifest: dict[str, Any]) -> list[str]:
    """Return what kubectl prints of the API server's refusal; see `test_kubectl_prints_the_sentence_...`."""
    with pytest.raises(RefusedError) as caught:
        _create(plane, manifest)
    assert caught.value.status == 422
    causes = [f"{cause['field']}: {cause['message']}" for cause in caught.value.details["causes"]]
    first = f'The {caught.value.details["kind"]} "{caught.value.details["name"]}" is invalid:'
    return [f"{first} {causes[0]}"] if len(causes) == 1 else [first, *(f"* {cause}" for cause in causes)]


@pytest.mark.parametrize("case", VALID)
def test_a_valid_manifest_is_accepted(control_plane: ControlPlane, case: str) -> None:
    manifest = changed(smallest(), VALID[case])
    assert _create(control_plane, manifest)["spec"] == manifest["spec"]


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_manifest_is_refused_in_one_sentence(control_plane: ControlPlane, case: str) -> None:
    changes, sentence = INVALID[case]
    assert _refusal(control_plane, changed(smallest(), changes)) == [f'The FineTuneJob "coach" is invalid: {sentence}']


@pytest.mark.parametrize("case", INVALID_BY_TYPE)
def test_a_value_of_the_wrong_type_or_size_is_refused(control_plane: ControlPlane, case: str) -> None:
    changes, sentence = INVALID_BY_TYPE[case]
    lines = _refusal(control_plane, changed(smallest(), changes))
    first = 'The FineTuneJob "coach" is invalid:'
    assert lines in ([f"{first} {sentence}"], [first, f"* {sentence}", _UNCHECKED])


# One of each shape of the answer: a rule, a value that is named, a value of no rule, several causes.
@pytest.mark.parametrize("case", ["adapter-nowhere", "url-of-a-folder", "unknown-method", "learning-rate-as-number"])
def test_kubectl_prints_the_sentence_that_the_api_server_says(control_plane: ControlPlane, case: str) -> None:
    changes, _ = (INVALID | INVALID_BY_TYPE)[case]
    manifest = changed(smallest(), changes)
    done = control_plane.apply(manifest, "--dry-run=server")
    assert [line.strip() for line in done.stderr.splitlines()] == _refusal(control_plane, manifest)
    assert done.returncode == 1


@pytest.mark.parametrize("case", ["smallest", "all-of-dataset"])
def test_kubectl_says_that_a_valid_manifest_is_accepted_and_no_more(control_plane: ControlPlane, case: str) -> None:
    done = control_plane.apply(changed(smallest(), VALID[case]), "--dry-run=server")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "finetunejob.finetune.dev/coach created (server dry run)\n"


def test_a_misspelt_field_is_refused(control_plane: ControlPlane) -> None:
    done = control_plane.apply(changed(smallest(), {"training.lerningRate": "2e-4"}), "--dry-run=server")
    assert done.stderr == (
        'Error from server (BadRequest): error when creating "STDIN": FineTuneJob in version "v1alpha1" cannot be '
        'handled as a FineTuneJob: strict decoding error: unknown field "spec.training.lerningRate"\n'
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a" * 41, "metadata.name must have at most 40 characters"),
        ("gym.coach", "metadata.name must not contain a dot"),
    ],
)
def test_a_name_that_jobs_cannot_carry_is_refused(control_plane: ControlPlane, name: str, sentence: str) -> None:
    done = control_plane.apply(smallest(name), "--dry-run=server")
    assert done.stderr == f'The FineTuneJob "{name}" is invalid: <nil>: Invalid value: {sentence}\n'


def test_the_longest_name_is_accepted(control_plane: ControlPlane) -> None:
    assert control_plane.apply(smallest("a" * 40), "--dry-run=server").returncode == 0
