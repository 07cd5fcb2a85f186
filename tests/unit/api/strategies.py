"""Valid specs, as Hypothesis draws them."""

import functools
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
KEYS = st.from_regex(r"[-_a-zA-Z0-9]{1,20}", fullmatch=True)
FOLDERS = st.from_regex(r"s3://[a-z0-9][a-z0-9-]{1,20}[a-z0-9](/[a-z0-9]{1,8}){0,3}/?", fullmatch=True)
OBJECTS = st.from_regex(r"s3://[a-z0-9][a-z0-9-]{1,20}[a-z0-9](/[a-z0-9가-힣]{1,8}){1,3}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
DECIMALS = st.sampled_from(["0.00001", "1e-5", "2e-4", "0.5", "1", "1.0", "9E-1"])


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


CONNECTION = {
    "endpoint": st.sampled_from(["https://minio.corp:9000", "http://10.0.0.1"]),
    "region": st.sampled_from(["us-east-1", "kr"]),
    "forcePathStyle": st.booleans(),
    "credentialsSecretRef": st.fixed_dictionaries({"name": NAMES}),
    "caBundle": st.fixed_dictionaries({"configMap": st.fixed_dictionaries({"name": NAMES, "key": KEYS})}),
}
connections = optional(**CONNECTION)
locations = st.fixed_dictionaries({"uri": FOLDERS}, optional=CONNECTION)
objects = st.fixed_dictionaries({"uri": OBJECTS}, optional=CONNECTION)
_paths = st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}", fullmatch=True)
volumes = st.fixed_dictionaries({"claimName": NAMES, "path": _paths})
_hubs = st.fixed_dictionaries(
    {"repository": st.sampled_from(["unsloth/llama-3-8b-bnb-4bit", "gpt2"])},
    optional={
        "revision": st.sampled_from(["main", "refs/pr/1", "v1.0"]),
        "tokenSecretRef": st.fixed_dictionaries({"name": NAMES, "key": KEYS}),
    },
)
_adapters = st.one_of(
    st.fixed_dictionaries({"s3": locations}),
    st.fixed_dictionaries({"fineTuneJobRef": st.fixed_dictionaries({"name": NAMES})}),
)


@st.composite
def _merged(draw: st.DrawFn, *parts: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """Draw the members of each part. Strategies are made once: to make and check them takes longer than to draw."""
    return {name: value for part in parts for name, value in draw(part).items()}


models = _merged(
    st.one_of(
        st.fixed_dictionaries({"huggingFace": _hubs}),
        st.fixed_dictionaries({"s3": locations}),
        st.fixed_dictionaries({"persistentVolumeClaim": volumes}),
    ),
    optional(
        quantization=st.sampled_from(["NF4", "None"]), maxSequenceLength=st.integers(64, 131072), adapter=_adapters
    ),
)


_dataset_hubs = st.fixed_dictionaries(
    {"repository": st.sampled_from(["org/rows", "rows"]), "path": _paths},
    optional={
        "revision": st.sampled_from(["main", "v1.0"]),
        "endpoint": CONNECTION["endpoint"],
        "tokenSecretRef": st.fixed_dictionaries({"name": NAMES, "key": KEYS}),
    },
)
_web_files = st.fixed_dictionaries(
    {
        "url": st.sampled_from(["https://files.corp/train.csv", "http://10.0.0.1:8080/a/%EA%B0%80.jsonl?x=1"]),
        "sha256": st.just("0a" * 32),
    }
)


_places = st.one_of(
    st.fixed_dictionaries({"configMap": st.fixed_dictionaries({"name": NAMES, "key": KEYS})}),
    st.fixed_dictionaries({"s3": objects}),
    st.fixed_dictionaries({"persistentVolumeClaim": volumes}),
    st.fixed_dictionaries({"huggingFace": _dataset_hubs}),
    st.fixed_dictionaries({"http": _web_files}),
)


def sources(formats: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return _merged(_places, optional(name=NAMES, format=st.sampled_from(formats)))


FORMATS: dict[str, tuple[str, ...]] = {
    "SFT": ("Auto", "Alpaca", "ShareGPT", "Messages", "PromptCompletion", "Text"),
    "DPO": ("Auto", "Preference"),
    "ORPO": ("Auto", "Preference"),
    "KTO": ("Auto", "Binary"),
}
COLUMNS = [
    *("instruction", "input", "output", "system", "messages", "conversations"),
    *("prompt", "completion", "text", "chosen", "rejected", "label"),
]


@functools.cache
def datasets(method: str) -> st.SearchStrategy[dict[str, Any]]:
    formats = FORMATS[method]
    template: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"promptTemplate": st.sampled_from(["Auto", "Model", "Alpaca"])}),
        st.fixed_dictionaries({"templateRef": st.fixed_dictionaries({"name": NAMES, "key": KEYS})}),
    )
    holdout: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"percent": st.integers(1, 20)}),
        st.fixed_dictionaries({"sources": st.lists(sources(formats), min_size=1, max_size=2)}),
    )
    others = optional(
        format=st.sampled_from(formats),
        columns=st.dictionaries(st.sampled_from(COLUMNS), TEXTS, max_size=12),
        chatTemplateKwargs=st.dictionaries(KEYS, st.sampled_from(["false", "3", "높음"]), max_size=3),
        systemPrompt=TEXTS,
        checks=optional(
            minimumExamples=st.integers(1, 1_000_000),
            invalidRows=st.sampled_from(["Fail", "Drop"]),
            duplicates=st.sampled_from(["Drop", "Keep"]),
            truncation=st.sampled_from(["Warn", "Drop", "Fail"]),
        ),
        holdout=holdout,
    )
    found = st.fixed_dictionaries({"sources": st.lists(sources(formats), min_size=1, max_size=4)})
    return _merged(found, template, others)


# Several GPUs have to divide the batch: test_shares.py.
_devices = optional(name=st.just("amd.com/gpu"), count=st.just(1))


def _divisors(batch: int) -> list[int]:
    return [n for n in range(1, batch + 1) if batch % n == 0]


@functools.cache
def _settings_of(method: str) -> st.SearchStrategy[dict[str, Any]]:
    """All but the batch."""
    steps: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"maxSteps": st.integers(1, 1000)}),
        st.fixed_dictionaries({"epochs": st.integers(1, 10)}),
    )
    warmup: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"warmupSteps": st.integers(0, 100_000)}),
        st.fixed_dictionaries({"warmupRatio": st.sampled_from(["0", "0.03", "5e-1"])}),
    )
    checkpoint: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"everySeconds": st.integers(1, 86400)}),
        st.fixed_dictionaries({"everySteps": st.integers(1, 1000)}),
    )
    weights = {"desirableWeight": DECIMALS, "undesirableWeight": DECIMALS} if method == "KTO" else {}
    of_method: dict[str, st.SearchStrategy[Any]] = (
        {"neftuneNoiseAlpha": st.just("5"), "trainOnResponsesOnly": st.booleans()}
        if method == "SFT"
        else {method.lower(): optional(beta=DECIMALS, **weights)}
    )
    others = optional(
        lora=optional(rank=st.integers(1, 512), alpha=st.integers(1, 2048), dropout=st.just("0.05")),
        learningRate=DECIMALS,
        weightDecay=DECIMALS,
        maxGradNorm=DECIMALS,
        adamBeta2=st.sampled_from(["0.95", "0.999"]),
        keep=st.sampled_from(["Best", "Last"]),
        earlyStoppingPatience=st.integers(1, 100),
        checkpoint=checkpoint,
        seed=st.integers(0, 2**31 - 1),
        **of_method,
    )
    named = {"method": st.just(method)}
    name = optional(**named) if method == "SFT" else st.fixed_dictionaries(named)
    return _merged(name, steps, warmup, others)


@functools.cache
def trainings(method: str) -> st.SearchStrategy[dict[str, Any]]:
    batch = st.integers(2 if method == "KTO" else 1, 64).flatmap(
        lambda size: st.fixed_dictionaries(
            {"batchSize": st.just(size)}, optional={"microBatchSize": st.sampled_from(_divisors(size))}
        )
    )
    return _merged(batch, _settings_of(method))


_evaluations = optional(
    prompts=st.lists(TEXTS, max_size=3),
    maxNewTokens=st.integers(1, 4096),
    gate=optional(holdoutLoss=st.just("MustImprove"), onMiss=st.sampled_from(["Warn", "Fail"])),
)
_mlflow = st.fixed_dictionaries(
    {"uri": CONNECTION["endpoint"]},
    optional={"experiment": TEXTS, "credentialsSecretRef": st.fixed_dictionaries({"name": NAMES})},
)


_outputs = st.fixed_dictionaries({"s3": locations}, optional={"reuse": st.sampled_from(["Identical", "Never"])})
_others: dict[str, st.SearchStrategy[Any]] = {
    "evaluation": _evaluations,
    "export": optional(gguf=st.lists(st.sampled_from(["F16", "Q8_0", "Q4_K_M"]), unique=True)),
    "tracking": optional(mlflow=_mlflow),
    "compute": optional(accelerator=optional(memoryMiB=st.integers(1024, 200_000), extendedResource=_devices)),
}


def _specs_of(method: str) -> st.SearchStrategy[dict[str, Any]]:
    required = {"model": models, "dataset": datasets(method), "output": _outputs}
    if method == "SFT":
        return st.fixed_dictionaries(required, optional={"training": trainings(method), **_others})
    return st.fixed_dictionaries({**required, "training": trainings(method)}, optional=_others)


specs = st.sampled_from(list(FORMATS)).flatmap({method: _specs_of(method) for method in FORMATS}.__getitem__)
