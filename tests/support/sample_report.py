"""A report as a job with Korean data writes it; and one whose every text tries to break out of the page."""

import math
from typing import Any

from finetune_api.report import Report

_SHA = "9f2c4b7a1d5e8036c4f1a2b39d7e6058b1c3d4e5f60718293a4b5c6d7e8f9012"
ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&{{ 7*7 }}</style>"


def _loss(steps: int) -> list[dict[str, float]]:
    """A falling curve with a repeatable ripple."""
    return [
        {"step": s, "value": round(1.28 + 1.35 * math.exp(-s / 45) + 0.09 * math.sin(s * 1.7) * math.cos(s * 0.31), 4)}
        for s in range(1, steps + 1)
    ]


def _artifact(name: str, kind: str, path: str, size: int, parity: dict[str, str] | None = None) -> dict[str, Any]:
    return {"name": name, "type": kind, "path": path, "sizeBytes": size, "sha256": _SHA, "parity": parity}


_ANSWERS: list[dict[str, Any]] = [
    {
        "prompt": "주문한 상품을 아직 못 받았는데 환불할 수 있나요? 🙏",
        "reference": "네, 배송 시작 전이라면 바로 환불됩니다. 마이페이지 > 주문 내역에서 '주문 취소'를 눌러 주세요.",
        "base": (
            "Refund policies vary by store. You should contact the seller directly and ask about the refund policy. "
            "Generally, refunds are available within 7 to 30 days of purchase, depending on the store's terms."
        ),
        "baseWithSystemPrompt": (
            "안녕하세요! 환불 가능 여부는 판매자의 정책에 따라 다릅니다. 먼저 판매자에게 문의해 보시기 바랍니다."
        ),
        "tuned": (
            "네, 아직 배송 전이면 바로 환불해 드립니다. 😊\n\n"
            "1. 마이페이지 > 주문 내역으로 가세요.\n2. 해당 상품의 '주문 취소'를 눌러 주세요.\n\n"
            "환불 금액은 영업일 기준 3일 안에 입금됩니다."
        ),
        "flags": {"base": ["WrongLanguage"], "baseWithSystemPrompt": [], "tuned": []},
        "gguf": {
            "F16": (
                "네, 아직 배송 전이면 바로 환불해 드립니다. 😊\n\n"
                "1. 마이페이지 > 주문 내역으로 가세요.\n2. 해당 상품의 '주문 취소'를 눌러 주세요.\n\n"
                "환불 금액은 영업일 기준 3일 안에 입금됩니다."
            ),
            "Q4_K_M": (
                "네, 배송 전이면 바로 환불해 드립니다.\n\n마이페이지 > 주문 내역에서 '주문 취소'를 눌러 주세요. "
                "환불 금액은 3영업일 안에 입금됩니다."
            ),
        },
    },
    {
        "prompt": "비밀번호를 잊어버렸어요.",
        "reference": None,
        "base": "비밀번호를 잊어버렸다면 비밀번호를 잊어버렸다면 비밀번호를 잊어버렸다면 비밀번호를 잊어버렸다면",
        "baseWithSystemPrompt": "로그인 화면에서 비밀번호 찾기를 이용해 보세요.",
        "tuned": "로그인 화면의 '비밀번호 찾기'를 눌러 주세요. 가입하신 이메일로 재설정 링크를 보내 드립니다.",
        "flags": {"base": ["Loop", "NoStop"], "baseWithSystemPrompt": [], "tuned": []},
        "gguf": {
            "F16": "로그인 화면의 '비밀번호 찾기'를 눌러 주세요. 가입하신 이메일로 재설정 링크를 보내 드립니다.",
            "Q4_K_M": "로그인 화면의 '비밀번호 찾기'를 눌러 주세요. 가입하신 이메일로 재설정 링크를 보내 드립니다.",
        },
    },
]

_DATA: dict[str, Any] = {
    "sources": [
        {
            "name": "s3://shop-data/support/train.jsonl",
            "sha256": _SHA,
            "rows": 4210,
            "kind": "JSON Lines",
            "format": "Conversations",
            "encoding": "UTF-8",
        },
        {
            "name": "상담기록_2025.csv",
            "sha256": _SHA,
            "rows": 1187,
            "kind": "CSV",
            "format": "Alpaca",
            "encoding": "CP949",
            "notes": ["Read as CP949, as spreadsheets in Korean save it."],
        },
    ],
    "rows": 5397,
    "examples": 5160,
    "checks": [
        {
            "name": "NearDuplicates",
            "severity": "Drop",
            "count": 193,
            "places": [
                {"source": "상담기록_2025.csv", "number": 18, "unit": "row"},
                {"source": "s3://shop-data/support/train.jsonl", "number": 402},
            ],
            "message": "nearly the same as an earlier row and left out: 193 rows; if they are intended, set "
            "dataset.checks.duplicates to Keep",
        },
        {
            "name": "TruncatedRows",
            "severity": "Warn",
            "count": 12,
            "places": [{"source": "s3://shop-data/support/train.jsonl", "number": 3071, "reason": "4,512 tokens"}],
            "message": "12 rows are longer than model.maxSequenceLength and lose their end; raise it or shorten them",
        },
    ],
    "lengths": {
        "unit": "tokens",
        "minimum": 21,
        "median": 214,
        "p95": 903,
        "maximum": 4512,
        "histogram": [
            {"upTo": 64, "count": 311},
            {"upTo": 128, "count": 1022},
            {"upTo": 256, "count": 1871},
            {"upTo": 512, "count": 1304},
            {"upTo": 1024, "count": 570},
            {"upTo": 2048, "count": 70},
            {"upTo": 4608, "count": 12},
        ],
    },
    "languages": {"hangul": 0.913, "latin": 0.081, "other": 0.006},
    "duplicates": {"exact": 44, "near": 193},
    "split": {"train": 4902, "holdout": 258},
    "sample": {
        "place": {"source": "상담기록_2025.csv", "number": 7, "unit": "row"},
        "segments": [
            {"text": "<|im_start|>system\n친절한 상담원입니다.<|im_end|>\n", "learned": False},
            {
                "text": "<|im_start|>user\n영업시간이 어떻게 되나요?<|im_end|>\n<|im_start|>assistant\n",
                "learned": False,
            },
            {"text": "평일 오전 9시부터 오후 6시까지입니다. 🕘<|im_end|>", "learned": True},
            {"text": "\n", "learned": False},
        ],
    },
}

_CONTENT: dict[str, Any] = {
    "run": {
        "namespace": "support",
        "name": "korean-support",
        "runId": _SHA,
        "outputUri": f"s3://shop-models/support/korean-support/runs/{_SHA}",
        "model": "Qwen/Qwen3-4B-Instruct",
        "revision": "cdbee75f17c01a7cc42f958dc650907174af0554",
        "method": "SFT",
        "settings": {
            "model.maxSequenceLength": "4096",
            "model.quantization": "NF4",
            "training.epochs": "1",
            "training.batchSize": "16",
            "training.learningRate": "0.0002",
            "training.learningRateSchedule": "Cosine",
            "training.lora.rank": "16",
            "training.lora.targetModules": "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
        },
    },
    "data": _DATA,
    "training": {
        "steps": 306,
        "loss": _loss(306),
        "holdoutLoss": [
            {"step": 0, "value": 2.402},
            {"step": 60, "value": 1.713},
            {"step": 120, "value": 1.508},
            {"step": 180, "value": 1.447},
            {"step": 240, "value": 1.429},
            {"step": 306, "value": 1.441},
        ],
        "keptStep": 240,
        "effective": {
            "microBatchSize": 8,
            "gradientAccumulation": 2,
            "attention": "flash_attention_2",
            "precision": "BF16",
            "gradientCheckpointing": "Offload",
            "optimizer": "AdamW8bit",
            "gpu": "NVIDIA H100 80GB HBM3",
            "driver": "570.86.15",
        },
        "memory": {"estimatedMiB": 11802, "peakMiB": 10944},
    },
    "evaluation": {
        "verdict": "Better",
        "sentence": "On 258 rows it never saw, the loss fell from 2.40 to 1.43 (difference 0.97 +- 0.03).",
        "holdoutRows": 258,
        "holdoutLossBase": 2.402,
        "holdoutLossTuned": 1.429,
        "standardError": 0.031,
        "forgetting": 0.084,
        "warnings": [
            "Overfitting: the hold-out loss rose after step 240, which was kept; train fewer steps or add examples."
        ],
        "answers": _ANSWERS,
    },
    "export": {
        "mergeBase": "Original",
        "artifacts": [
            _artifact("Adapter", "LoRAAdapter", "adapter/adapter_model.safetensors", 132_187_888),
            _artifact(
                "F16",
                "GGUF",
                "gguf/korean-support-F16.gguf",
                8_051_284_896,
                {"kl": "0.0004", "top1": "0.9981", "retainedGain": "0.9993"},
            ),
            _artifact(
                "Q4_K_M",
                "GGUF",
                "gguf/korean-support-Q4_K_M.gguf",
                2_497_280_256,
                {"kl": "0.0412", "top1": "0.9127"},
            ),
            _artifact("Modelfile-Q4_K_M", "Modelfile", "gguf/Modelfile-Q4_K_M", 1_402),
        ],
        "limits": {"F16": {"kl": 0.01, "top1": 0.95, "retainedGain": 0.9}, "Q4_K_M": {"kl": 0.2, "top1": 0.7}},
    },
    "timings": {
        "prepare": 74.2,
        "fetch": 48.9,
        "load": 21.3,
        "evaluateBase": 96.0,
        "train": 1388.4,
        "evaluateTuned": 92.7,
        "upload": 6.1,
        "merge": 11.2,
        "convert": 36.1,
        "quantize": 92.3,
        "prove": 604.0,
        "answer": 41.0,
        "export": 16.9,
    },
}


def sample_report() -> Report:
    """Return a whole report."""
    return Report.model_validate(_CONTENT)


def hostile_report() -> Report:
    """Return a whole report in which every free text is ATTACK."""
    # Not free: words that the contract lists, checksums, figures.
    fixed = {"verdict", "mergeBase", "type", "sha256", "runId", "severity", "unit", "kl", "top1", "retainedGain"}

    def attacked(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: attacked(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return value if name in ("base", "tuned", "baseWithSystemPrompt") else [attacked(v, name) for v in value]
        return ATTACK if isinstance(value, str) and name not in fixed else value

    content = attacked(_CONTENT)
    for artifact, name in zip(content["export"]["artifacts"], ("a", "b", "c", "d"), strict=True):
        artifact["name"] = f"<b>{name}</b>"
    for field in ("attention", "precision", "gradientCheckpointing", "optimizer", "gpu", "driver"):
        content["training"]["effective"][field] = "<i onclick=alert(1)>"
    return Report.model_validate(content)
