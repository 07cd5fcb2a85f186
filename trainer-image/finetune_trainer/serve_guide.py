"""SERVE.md: the commands that run the result."""

from collections.abc import Sequence

from finetune_api.plan import Plan
from finetune_trainer.prepared import Prepared


def text(plan: Plan, prepared: Prepared, uri: str, ggufs: Sequence[tuple[str, str]], modelfiles: Sequence[str]) -> str:
    """Return the guide. `ggufs`: (type, path) with the paths relative to the run's folder, as `modelfiles`."""
    name = plan.job.name
    rank = plan.training.lora.rank
    parts = [
        f"# How to serve {name}",
        "",
        f"The files are in `{uri}`. Fetch the folder first:",
        "",
        "```sh",
        f"aws s3 cp --recursive {uri} {name}" if uri.startswith("s3://") else f"cp -r {uri} {name}",
        f"cd {name}",
        "```",
        "",
        *_template_note(prepared),
    ]
    for (gguf_type, path), modelfile in zip(ggufs, modelfiles, strict=True):
        folder, _, file = path.rpartition("/")
        parts += [
            f"## {gguf_type}: {path}",
            "",
            "Ollama:",
            "",
            "```sh",
            f"cd {folder}",
            f"ollama create {name} -f {modelfile.rpartition('/')[2]}",
            f"ollama run {name}",
            "```",
            "",
            "llama.cpp's server, with the chat template that is in the file:",
            "",
            "```sh",
            f"llama-server -m {path} --jinja -c {plan.model.max_sequence_length}",
            "```",
            "",
            "LM Studio:",
            "",
            "```sh",
            f"mkdir -p ~/.lmstudio/models/finetuned/{name}",
            f"cp {path} ~/.lmstudio/models/finetuned/{name}/{file}",
            "```",
            "",
        ]
    parts += [
        "## The adapter",
        "",
        f"vLLM, with the base model `{prepared.model.reference}` (revision `{prepared.model.revision}`):",
        "",
        "```sh",
        f"vllm serve {prepared.model.reference} --enable-lora --max-lora-rank {_vllm_rank(rank)} \\",
        f"  --lora-modules {name}=./adapter --chat-template ./adapter/chat_template.jinja",
        "```",
        "",
    ]
    return "\n".join(parts)


def _template_note(prepared: Prepared) -> list[str]:
    note = {
        "Model": "The model was trained with its own chat template; every server below uses it.",
        "Alpaca": (
            "The model was trained with the Alpaca text (`### Instruction:` and `### Response:`). It is in the files "
            "as a chat template, so that the servers below use it; do not replace it with another one."
        ),
        "Custom": (
            "The model was trained with the chat template of the job (`dataset.templateRef`). It is in the files, so "
            "that the servers below use it; do not replace it with another one."
        ),
    }[prepared.template]
    system = "The system prompt of the training has to be sent too." if prepared.system_prompt else ""
    return [" ".join(part for part in (note, system) if part), ""]


def _vllm_rank(rank: int) -> int:
    """The smallest value that vLLM's --max-lora-rank accepts and that is not below the adapter's rank."""
    return next((allowed for allowed in (8, 16, 32, 64, 128, 256, 320, 512) if allowed >= rank), rank)
