#!/usr/bin/env python3
"""What training takes of GPU memory, beside what `finetune_api.memory` estimates: how its constants were measured.

    python benchmarks/memory.py --work /tmp/benchmark --json memory.json     # Llama 3 8B's shape, on a GPU

One process for each way of gradient checkpointing loads the model as the train stage does, then runs forward, backward
and one optimizer step for micro-batches of several sizes, each of rows of one length. Model and tokenizer are made in
--work, as by training.py.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import training

from finetune_trainer.gpu.precision import dtype

SIZES = ((1, 256), (1, 1024), (1, 2048), (2, 512), (2, 2048), (4, 1024), (8, 256), (8, 512), (8, 1024), (4, 2048))
MODES = ("None", "Standard", "Offload")


def main() -> int:
    """Measure, and print one line per way and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for model and results")
    parser.add_argument("--shape", choices=sorted(training.SHAPES), default="llama-3-8b")
    parser.add_argument("--quantization", choices=["NF4", "None"], default="NF4")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = options.work / options.shape
    if options.mode:
        return measure(options, model)
    options.work.mkdir(parents=True, exist_ok=True)
    if not (model / "config.json").exists():
        training.write_model(model, training.SHAPES[options.shape], training.vocabulary())
    found: list[dict[str, Any]] = []
    for mode in MODES:
        command = [sys.executable, __file__, "--work", str(options.work), "--shape", options.shape]
        command += ["--quantization", options.quantization, "--mode", mode]
        done = subprocess.run(command, env=training.environment(), stdout=subprocess.PIPE, text=True, check=True)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"mode"')]
        for line in lines:
            print(json.dumps(line), flush=True)
        found += lines
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def measure(options: argparse.Namespace, folder: Path) -> int:
    """Print a JSON line for each size: MiB that torch reserved at most, and that the driver says are used."""
    from finetune_api import memory
    from finetune_api.plan import Plan
    from finetune_trainer.gpu import device as gpu_device
    from finetune_trainer.model import load as load_model
    from finetune_trainer.model import memory_fit
    from finetune_trainer.runtime import environment

    data = options.work / "rows-100.jsonl"
    training.write_rows(data, training.vocabulary(), 100)
    options.steps, options.micro_batch, options.checkpointing = 20, 1, options.mode
    plan = Plan.model_validate_json(
        training.write_plan(options, folder, data, options.work / "output").read_text(encoding="utf-8")
    )
    with environment.scratch_folder("memory") as scratch, environment.applied(scratch):
        import torch

        device = gpu_device.find(allow_cpu=True)
        loaded = load_model.load(plan, folder, device, memory_fit.usual(plan))
        import bitsandbytes

        config = json.loads((folder / "config.json").read_text())
        parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        optimizer = bitsandbytes.optim.AdamW8bit(parameters, lr=1e-5)
        load_model.for_training(loaded.model)
        target = next(loaded.model.parameters()).device
        for rows, length in SIZES:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            ids = torch.randint(5, 1500, (rows, length), device=target)
            started = time.monotonic()
            try:
                with torch.autocast("cuda", dtype=dtype(loaded.precision)):
                    loss = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            except torch.OutOfMemoryError:
                print(json.dumps({"mode": options.mode, "rows": rows, "length": length, "oom": True}), flush=True)
                continue
            free, whole = torch.cuda.mem_get_info()
            shape = memory.Shape.of(config)
            estimate = memory.estimate(
                shape,
                footprint=memory.Footprint(),
                nf4=options.quantization == "NF4",
                rank=plan.training.lora.rank,
                target_modules=plan.training.lora.target_modules,
                micro_batch_size=rows,
                longest=length,
                checkpointing=options.mode,
            )
            figures = {
                "mode": options.mode,
                "rows": rows,
                "length": length,
                "allocatedMiB": torch.cuda.max_memory_allocated() // 2**20,
                "reservedMiB": torch.cuda.max_memory_reserved() // 2**20,
                "contextMiB": (whole - free - torch.cuda.memory_reserved()) // 2**20,
                "estimatedMiB": estimate.total_mib,
                "parts": asdict(estimate),
                "seconds": round(time.monotonic() - started, 2),
            }
            print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
