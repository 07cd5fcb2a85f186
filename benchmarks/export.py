#!/usr/bin/env python3
"""How fast the export stage makes its files, on a model of random weights, beside copying as many bytes and Unsloth.

    python benchmarks/export.py --work /tmp/benchmark                 # Llama 3 8B's shape; 60 GB of disk
    python benchmarks/export.py --work /tmp/benchmark --shape tiny    # a trial on a CPU

Needs no network: the model and an adapter of rank 16 on seven linear layers are made in --work. Every case is a process
of its own; its seconds leave out the imports, its peak memory is the resident set of the process or its child. Before
each, what the one before has written is brought to the disk: else a case would wait for that as well.

  nf4             our 4-bit weights against those of bitsandbytes on this machine's GPU, bit by bit
  merge           merge into the 16-bit weights
  copy            copy the files of the merged model
  unsloth         Unsloth's save_pretrained_merged(..., save_method="merged_16bit") of the same model and adapter
  merge-trained   merge into the 4-bit weights that training saw, rounded on the way
  merge-4bit      merge into the weights of a repository stored in 4 bit
  F16, Q8_0, ...  GGUF of the merged model; F16 comes first, the others are quantized from it

Unsloth's own GGUF export is no case: it installs llama.cpp from the network when it is called.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training

CASES = ["nf4", "merge", "copy", "unsloth", "merge-trained", "merge-4bit", "F16", "Q8_0", "Q4_K_M"]
RANK = 16
# Weights of the layers that are compared in the case nf4. In rows that are no multiple of 64 bitsandbytes' CPU kernel
# takes another block's absmax, so there the last one differs without a GPU.
NF4_SHAPES = ((4096, 4096), (1024, 4096), (1000, 4032), (96, 160))


def main() -> int:
    """Run the cases one after another and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}, or another GGUF type; all")
    parser.add_argument("--work", type=Path, required=True, help="folder for model and results")
    parser.add_argument("--shape", choices=sorted(training.SHAPES), default="llama-3-8b")
    parser.add_argument("--until", type=float, default=1e9, help="begin no case after that many seconds")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    bench = Bench(options.work, options.shape)
    if options.case:
        print(json.dumps(bench.measure(options.case)))
        return 0
    started = time.monotonic()
    bench.prepare()
    found: list[dict[str, Any]] = []
    for case in options.cases or CASES:
        if time.monotonic() - started > options.until:
            found.append({"case": case, "skipped": "no time left"})
        else:
            found.append(bench.run(case))
        print(json.dumps(found[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


class Bench:
    """The folders, and how each case uses them."""

    def __init__(self, work: Path, shape: str) -> None:
        self.work, self.shape = work, training.SHAPES[shape]
        self.base, self.adapter = work / shape, work / f"{shape}-adapter"
        self.merged, self.scratch = work / "merged", work / "scratch"

    def prepare(self) -> None:
        """Make model and adapter."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        words = training.vocabulary()
        if not (self.base / "config.json").exists():
            training.write_model(self.base, self.shape, words)
        write_adapter(self.adapter, self.base, self.shape)

    def run(self, case: str) -> dict[str, Any]:
        """Measure a case in a process of its own, and remove what no later case needs."""
        command = [sys.executable, __file__, "--work", str(self.work), "--shape", self.base.name, "--case", case]
        if case == "merge-4bit":
            training.stored_4bit(self.base)
        os.sync()
        started = time.monotonic()
        variables = training.environment() | {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=False)
        wall = round(time.monotonic() - started, 1)
        for name in ("copy", "unsloth", "merge-trained", "merge-4bit", "Q8_0.gguf", "Q4_K_M.gguf"):
            for path in self.work.glob(f"{name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if case == "F16":
            shutil.rmtree(self.merged)
        if done.returncode:
            return {"case": case, "failed": done.returncode, "wallSeconds": wall}
        return {"case": case, **json.loads(done.stdout.splitlines()[-1]), "wallSeconds": wall}

    def measure(self, case: str) -> dict[str, Any]:
        """Do the case here."""
        cases: dict[str, Callable[[], dict[str, Any]]] = {
            "nf4": compare_nf4,
            "merge": lambda: self._merge(self.base, self.merged),
            "merge-trained": lambda: self._merge(self.base, self.work / case, trained=True),
            "merge-4bit": lambda: self._merge(training.stored_4bit(self.base), self.work / case, trained=True),
            "copy": lambda: timed(lambda: shutil.copytree(self.merged, self.work / case), self.work / case),
            "unsloth": self._unsloth,
        }
        figures = cases.get(case, lambda: self._gguf(case))()
        # Not ru_maxrss for this process: that begins at what its parent had.
        status = Path("/proc/self/status").read_text().splitlines()
        (own,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return figures | {"peakMiB": max(own, child) >> 10}

    def _merge(self, base: Path, target: Path, *, trained: bool = False) -> dict[str, Any]:
        import torch

        from finetune_trainer.export import merge
        from finetune_trainer.model.base_weights import Loading

        assert torch.__version__  # loaded before the clock starts
        # What an earlier run left whole would not be made again.
        shutil.rmtree(target, ignore_errors=True)
        rounded = [name.removesuffix(".weight") for name in linear_layers(self.shape)]
        loaded = Loading(precision="bf16", in_4bit=rounded) if trained else None
        return timed(lambda: merge.merge(base, self.adapter, target, None, loaded, lambda _: None), target)

    def _gguf(self, gguf_type: str) -> dict[str, Any]:
        import llama_cpp

        from finetune_trainer.export.gguf import convert as gguf_convert

        assert llama_cpp.__version__
        os.environ.setdefault("TMPDIR", str(self.scratch))
        target, source = self.work / f"{gguf_type}.gguf", self.work / "F16.gguf"

        if gguf_type != "F16":
            return timed(lambda: gguf_convert.quantize(source, target, gguf_type, lambda _: None), target)  # type: ignore[arg-type]
        # Before the clock starts; it reads the converter's libraries, too, as the export stage has by then.
        write_vocabulary(self.merged, self.shape["vocab_size"])
        return timed(lambda: gguf_convert.convert(self.merged, target, "F16", self.scratch, lambda _: None), target)

    def _unsloth(self) -> dict[str, Any]:
        import torch
        import unsloth
        from unsloth import FastLanguageModel

        started = time.monotonic()
        gpu = torch.cuda.is_available()
        model, tokenizer = FastLanguageModel.from_pretrained(
            str(self.adapter), max_seq_length=512, load_in_4bit=gpu, local_files_only=True, use_exact_model_name=True
        )
        loaded = round(time.monotonic() - started, 1)
        target = self.work / "unsloth"
        figures = timed(
            lambda: model.save_pretrained_merged(str(target), tokenizer, save_method="merged_16bit"), target
        )
        return figures | {"loadSeconds": loaded, "version": unsloth.__version__}


def timed(work: Callable[[], Any], made: Path) -> dict[str, Any]:
    """Return the seconds of `work` and the size of what it made."""
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    files = [p for p in made.rglob("*") if p.is_file()] if made.is_dir() else [made]
    size = sum(p.stat().st_size for p in files)
    return {
        "seconds": round(seconds, 2),
        "gigabytes": round(size / 1e9, 2),
        "GBPerSecond": round(size / seconds / 1e9, 2),
    }


def linear_layers(shape: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the weights that the adapter changes, with their shapes."""
    files = training.tensors_by_file(shape)
    return {name: size for tensors in files for name, size in tensors.items() if name.endswith("_proj.weight")}


def write_adapter(folder: Path, base: Path, shape: dict[str, Any]) -> None:
    """Write an adapter of random matrices as PEFT does."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    torch.manual_seed(training.SEED)
    tensors: dict[str, Any] = {}
    for name, (rows, columns) in linear_layers(shape).items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, columns) * 0.02
        tensors[f"{module}.lora_B.weight"] = torch.randn(rows, RANK) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "r": RANK,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-2] for name in linear_layers(shape)}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    for path in base.glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)


def write_vocabulary(folder: Path, size: int) -> None:
    """Replace the tokenizer by bytes and made-up tokens, a kind that the converter takes without knowing its name."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"\u2581{number}" for number in range(size - len(tokens))]
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    for path in folder.glob("tokenizer*"):
        path.unlink()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def compare_nf4() -> dict[str, Any]:
    """Quantize on the GPU, or on the CPU where there is none, and dequantize there and by ourselves."""
    import torch
    from bitsandbytes import functional

    from finetune_trainer.model import nf4

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(training.SEED)
    stored = differing = requantized = 0
    started = time.monotonic()
    for shape in NF4_SHAPES:
        for kind in (torch.bfloat16, torch.float16, torch.float32):
            weight = (torch.randn(shape, device=device) * 0.02).to(kind)
            codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
            theirs = functional.dequantize_4bit(codes, state).cpu()
            tensors = {"w": codes.cpu(), **{f"w.{k}": v.cpu() for k, v in state.as_dict(packed=True).items()}}
            ours = nf4.Decoder(nf4.read_state("w", tensors, tensors.__getitem__)).decode(
                tensors["w"].reshape(-1).numpy(), 0
            )
            differing += int((ours.to(kind).view(shape) != theirs).sum())
            flat = weight.cpu().reshape(-1)
            rounded, restored = nf4.quantize([lambda flat=flat: flat], shape)  # type: ignore[misc]
            again = nf4.Decoder(restored).decode(rounded, 0).to(kind).view(shape)
            requantized += int((again != theirs).sum())
            stored += weight.numel()
    return {
        "device": device,
        "weights": stored,
        "differing": differing,
        # Ties between two codes, and the last bit of the mean absmax, which every device sums in its own order.
        "differingWhereRoundedHere": requantized,
        "seconds": round(time.monotonic() - started, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
