"""FineTuneJobs to apply: a smallest one, and small changes to it."""

from copy import deepcopy
from typing import Any

Object = dict[str, Any]

S3_MODEL: Object = {"s3": {"uri": "s3://models/llama/"}}
S3_SOURCE: Object = {"s3": {"uri": "s3://data/train.jsonl"}}


def smallest(name: str = "coach") -> Object:
    """Return the smallest valid job."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": deepcopy(S3_MODEL),
            "dataset": {"sources": [deepcopy(S3_SOURCE)]},
            "output": {"s3": {"uri": "s3://results/"}},
        },
    }


def changed(manifest: Object, changes: Object) -> Object:
    """Return a copy with values set at dotted paths below spec; None removes what is there."""
    copy = deepcopy(manifest)
    for path, value in changes.items():
        *folders, last = path.split(".")
        node = copy["spec"]
        for folder in folders:
            node = node.setdefault(folder, {})
        if value is None:
            del node[last]
        else:
            node[last] = value
    return copy
