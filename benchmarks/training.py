#!/usr/bin/env python3
"""How fast the train stage is, on a model of random weights: the very commands that a pod runs.

    python benchmarks/training.py --work /tmp/benchmark                  # Llama 3 8B's shape, on a GPU
    python benchmarks/training.py --work /tmp/benchmark --shape tiny     # a trial on a CPU

Needs no network: model, tokenizer and data are made in --work and kept there for the next run. The settings are those
of examples/guide.yaml: NF4, LoRA of rank 16 on seven linear layers, 8 examples a step, 8-bit AdamW. tok/s counts
supervised, non-padding tokens and leaves out the first steps, which compile.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "examples/guide.yaml"
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
    },
    "tiny": {
        "vocab_size": 4096,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    },
}
LEARNING_RATES = {"SFT": 2e-4, "DPO": 5e-6, "ORPO": 8e-6, "KTO": 5e-6}
WARM_UP_STEPS = 5
SEED = 3407
# Chat-length rows: lognormal, about 157 tokens on average.
MEAN_LOG, SIGMA_LOG = 4.75, 0.75


def main() -> int:
    """Make what is missing, run prepare and train, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for model, data and results")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-3-8b")
    parser.add_argument("--method", choices=sorted(LEARNING_RATES), default="SFT")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--checkpointing", choices=["Auto", "None", "Standard", "Offload"], default="Auto")
    parser.add_argument("--quantization", choices=["NF4", "None"], default="NF4")
    parser.add_argument(
        "--stored-4bit", action="store_true", help="train on a repository whose weights are stored in NF4 (*-bnb-4bit)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    data = options.work / f"rows-{options.method}-{options.rows}.jsonl"
    if not data.exists():
        write_rows(data, words, options.rows, options.method)
    model = options.work / options.shape
    if not (model / "config.json").exists():
        write_model(model, SHAPES[options.shape], words)
    if options.stored_4bit:
        model = stored_4bit(model)
    output = options.work / "output"
    shutil.rmtree(output, ignore_errors=True)
    plan = write_plan(options, model, data, output)
    seconds = {stage: run_stage(stage, plan, options.work / "scratch") for stage in ("prepare", "train")}
    result = figures(output, seconds)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def vocabulary() -> list[str]:
    """Return made-up words of the benchmark's language."""
    generator = random.Random(SEED)  # noqa: S311
    return ["".join(generator.choices("bcdfghklmnprstvz", k=2)) + generator.choice("aeiou") for _ in range(1500)]


def write_rows(path: Path, words: list[str], count: int, method: str) -> None:
    """Write rows of chat length in the method's format."""
    generator = random.Random(SEED)  # noqa: S311

    def words_of_answer() -> int:
        return min(1500, max(8, round(generator.lognormvariate(MEAN_LOG, SIGMA_LOG))))

    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            length = words_of_answer()
            question = " ".join(generator.choices(words, k=12))
            answer = " ".join(generator.choices(words, k=length))
            row: dict[str, Any]
            if method == "SFT":
                row = {"instruction": question, "input": "", "output": answer}
            elif method == "KTO":
                row = {"prompt": question, "completion": answer, "label": number % 2 == 0}
            else:
                rejected = " ".join(generator.choices(words, k=words_of_answer()))
                row = {"prompt": question, "chosen": answer, "rejected": rejected}
            file.write(json.dumps(row) + "\n")


def write_model(folder: Path, shape: dict[str, Any], words: list[str]) -> None:
    """Write random weights in 16 bit, one file a layer, with a tokenizer of the words."""
    import torch
    from safetensors.torch import save_file

    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    index: dict[str, str] = {}
    total = 0
    files = tensors_by_file(shape)
    for number, tensors in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        made = {
            key: (torch.randn(size, device=device) * 0.02 if len(size) > 1 else torch.ones(size)).bfloat16().cpu()
            for key, size in tensors.items()
        }
        save_file(made, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(made, name)
        total += sum(2 * math.prod(size) for size in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    write_tokenizer(folder, words)
    config = shape | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    print(f"made {folder} ({total / 1e9:.1f} GB) in {time.monotonic() - started:.0f} s")


def stored_4bit(folder: Path) -> Path:
    """Write the model as the `*-bnb-4bit` repositories have it: NF4 with nested absmax. Returns the new folder."""
    target = folder.with_name(f"{folder.name}-bnb-4bit")
    if (target / "config.json").exists():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    started = time.monotonic()
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.bfloat16, device_map={"": device}
    )
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    print(f"made {target} in {time.monotonic() - started:.0f} s")
    return target


def tensors_by_file(shape: dict[str, Any]) -> list[dict[str, tuple[int, ...]]]:
    """Return the names and shapes of a Llama's weights: the embeddings and the head, then one file a layer."""
    hidden, inner, vocabulary_size = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    heads = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    files: list[dict[str, tuple[int, ...]]] = [
        {
            "model.embed_tokens.weight": (vocabulary_size, hidden),
            "model.norm.weight": (hidden,),
            "lm_head.weight": (vocabulary_size, hidden),
        }
    ]
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        files.append(
            {
                f"{prefix}.input_layernorm.weight": (hidden,),
                f"{prefix}.post_attention_layernorm.weight": (hidden,),
                f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
                f"{prefix}.self_attn.k_proj.weight": (heads, hidden),
                f"{prefix}.self_attn.v_proj.weight": (heads, hidden),
                f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
                f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
                f"{prefix}.mlp.up_proj.weight": (inner, hidden),
                f"{prefix}.mlp.down_proj.weight": (hidden, inner),
            }
        )
    return files


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """Write a byte-level BPE tokenizer in which a word of the data is about one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words), *(f" {w}" for w in words)], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def write_plan(options: argparse.Namespace, model: Path, data: Path, output: Path) -> Path:
    """Render the guide's job as `plan` does, with the options' settings."""
    command = [sys.executable, "-m", "finetune_trainer", "plan", "--job", str(JOB), "--model", str(model)]
    command += ["--dataset", str(data), "--output", str(output), "--allow-cpu"]
    done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    plan = json.loads(done.stdout)
    plan["model"]["quantization"] = options.quantization
    plan["dataset"]["format"] = "Auto"
    for source in plan["dataset"]["sources"]:
        source["format"] = "Auto"
    if options.method != "SFT":
        plan["training"]["preference"] = {"beta": 0.1}
    plan["training"] |= {
        "method": options.method,
        "learningRate": LEARNING_RATES[options.method],
        "maxSteps": options.steps,
        "microBatchSize": options.micro_batch,
        "gradientCheckpointing": options.checkpointing,
    }
    plan["evaluation"] = {"prompts": ["bada"], "maxNewTokens": 8}
    plan["export"] = {"gguf": []}  # not measured here, and llama.cpp need not be there
    path: Path = options.work / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def environment() -> dict[str, str]:
    """Put the repository's packages before what is there."""
    paths = [str(ROOT / "crds"), str(ROOT / "trainer-image"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def run_stage(stage: str, plan: Path, scratch: Path) -> float:
    """Run one stage and return its wall time in seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "finetune_trainer", stage, "--plan", str(plan)]
    subprocess.run(command, env=environment() | {"FINETUNE_SCRATCH": str(scratch)}, check=True)
    return time.monotonic() - started


def figures(output: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """Read what the stages left."""
    (path,) = output.glob("*/.runs/*/train.json")
    result = json.loads(path.read_text())
    (lines,) = output.glob("*/*/*/metrics.jsonl")
    steps = [json.loads(line) for line in lines.read_text().splitlines()]
    counted = steps[WARM_UP_STEPS:] or steps
    step_seconds = [step["seconds"] for step in counted]
    return {
        "effective": result["effective"],
        "tokensPerSecond": round(sum(s["supervisedTokens"] for s in counted) / sum(step_seconds), 1),
        "stepsPerSecond": round(1 / statistics.mean(step_seconds), 3),
        "firstStepSeconds": round(steps[0]["seconds"], 1),
        "peakMiB": result.get("memory", {}).get("peakMiB"),
        "lossFirst": round(steps[0]["loss"], 4),
        "lossLast": round(steps[-1]["loss"], 4),
        "evaluation": result["evaluation"],
        "partSeconds": result["timings"],
        "stageSeconds": {stage: round(value, 1) for stage, value in seconds.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Return the figures for people."""
    effective = result["effective"]
    rows = {
        "GPU": effective["gpu"],
        "precision, attention": f"{effective['precision']}, {effective['attention']}",
        "micro-batch x accumulation": f"{effective['microBatchSize']} x {effective['gradientAccumulation']}",
        "gradient checkpointing": effective["gradientCheckpointing"],
        "optimizer": effective["optimizer"],
        "supervised tokens/s": result["tokensPerSecond"],
        "steps/s": result["stepsPerSecond"],
        "first step, s": result["firstStepSeconds"],
        "peak memory, MiB": result["peakMiB"],
        "loss, first and last step": f"{result['lossFirst']} -> {result['lossLast']}",
        **{f"{part}, s": value for part, value in result["partSeconds"].items()},
        "prepare in all, s": result["stageSeconds"]["prepare"],
        "train in all, s": result["stageSeconds"]["train"],
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


if __name__ == "__main__":
    sys.exit(main())
