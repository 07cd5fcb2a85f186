"""Valid specs, as Hypothesis draws them."""

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


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(
        st.one_of(
            st.fixed_dictionaries({"huggingFace": _hubs}),
            st.fixed_dictionaries({"s3": locations}),
            st.fixed_dictionaries({"persistentVolumeClaim": volumes}),
        )
    )
    settings = optional(quantization=st.sampled_from(["NF4", "None"]), maxSequenceLength=st.integers(64, 131072))
    return {**source, **draw(settings)}


@st.composite
def sources(draw: st.DrawFn) -> dict[str, Any]:
    place = draw(
        st.one_of(
            st.fixed_dictionaries({"configMap": st.fixed_dictionaries({"name": NAMES, "key": KEYS})}),
            st.fixed_dictionaries({"s3": objects}),
            st.fixed_dictionaries({"persistentVolumeClaim": volumes}),
        )
    )
    return {**place, **draw(optional(name=NAMES))}


datasets = st.fixed_dictionaries(
    {"sources": st.lists(sources(), min_size=1, max_size=4)},
    optional={
        "format": st.sampled_from(["Auto", "Alpaca", "Messages"]),
        "promptTemplate": st.sampled_from(["Auto", "Model", "Alpaca"]),
        "systemPrompt": TEXTS,
        "checks": optional(minimumExamples=st.integers(1, 1_000_000), invalidRows=st.sampled_from(["Fail", "Drop"])),
        "holdout": optional(percent=st.integers(1, 20)),
    },
)


@st.composite
def trainings(draw: st.DrawFn) -> dict[str, Any]:
    batch = draw(st.integers(1, 64))
    divisors = [n for n in range(1, batch + 1) if batch % n == 0]
    steps: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"maxSteps": st.integers(1, 1000)}),
        st.fixed_dictionaries({"epochs": st.integers(1, 10)}),
    )
    checkpoint: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"everySeconds": st.integers(1, 86400)}),
        st.fixed_dictionaries({"everySteps": st.integers(1, 1000)}),
    )
    others = optional(
        lora=optional(rank=st.integers(1, 512), alpha=st.integers(1, 2048), dropout=st.just("0.05")),
        microBatchSize=st.sampled_from(divisors),
        learningRate=DECIMALS,
        weightDecay=DECIMALS,
        maxGradNorm=DECIMALS,
        checkpoint=checkpoint,
        seed=st.integers(0, 2**31 - 1),
    )
    return {"batchSize": batch, **draw(steps), **draw(others)}


specs = st.fixed_dictionaries(
    {"model": models(), "dataset": datasets, "output": st.fixed_dictionaries({"s3": locations})},
    optional={
        "training": trainings(),
        "evaluation": optional(prompts=st.lists(TEXTS, max_size=3), maxNewTokens=st.integers(1, 4096)),
        "export": optional(gguf=st.lists(st.sampled_from(["F16", "Q8_0", "Q4_K_M"]), unique=True)),
    },
)
