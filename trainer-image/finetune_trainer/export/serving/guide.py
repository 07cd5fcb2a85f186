"""SERVE.md: the commands that run the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_api.plan import Plan
from finetune_trainer.run_folder.prepared import Prepared

# What vLLM's --max-lora-rank accepts (https://docs.vllm.ai/en/stable/api/vllm/config/lora/).
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Files:
    """What export made, paths relative to the run's folder."""

    # By GGUF type.
    ggufs: Mapping[str, str] = field(default_factory=dict)
    modelfiles: Mapping[str, str] = field(default_factory=dict)
    lora_gguf: str | None = None
    # The folder of the merged model.
    merged: str | None = None


def text(plan: Plan, prepared: Prepared, uri: str, files: Files) -> str:
    """Return the guide. `uri` is the run's folder."""
    name = plan.job.name
    parts = [
        f"# How to serve {name}",
        "",
        f"The files are in `{uri}`. Fetch the folder first:",
        "",
        *_shell(_fetch(plan, uri), f"cd {name}"),
        *_own_ca(plan),
        _template_note(prepared),
        "",
    ]
    for gguf_type, path in files.ggufs.items():
        parts += _gguf(plan, gguf_type, path, files.modelfiles[gguf_type])
    if files.lora_gguf is not None:
        parts += _lora_gguf(plan, prepared, files.lora_gguf)
    if files.merged is not None:
        parts += _merged(name, files.merged)
    parts += _adapter(plan, prepared)
    return "\n".join(parts)


def _fetch(plan: Plan, uri: str) -> str:
    name, target = plan.job.name, plan.output.s3
    if target is None:
        return f"cp -r {uri} {name}"
    # Without an endpoint, aws asks Amazon's servers for a bucket that another server has.
    options = {"endpoint-url": target.endpoint, "region": target.region, "ca-bundle": target.ca_file and "ca.crt"}
    given = "".join(f" --{option} {value}" for option, value in options.items() if value)
    return f"aws s3 cp --recursive{given} {uri} {name}"


def _own_ca(plan: Plan) -> list[str]:
    if plan.output.s3 is None or plan.output.s3.ca_file is None:
        return []
    return ["`ca.crt` is the certificate of your own CA, which the server's is signed by.", ""]


def _gguf(plan: Plan, gguf_type: str, path: str, modelfile: str) -> list[str]:
    name = plan.job.name
    folder, _, file = path.rpartition("/")
    return [
        f"## {gguf_type}: {path}",
        "",
        "Ollama:",
        "",
        *_shell(
            f"cd {folder}",
            f"ollama create {name} -f {modelfile.rpartition('/')[2]}",
            f"ollama run {name}",
        ),
        "If Ollama cannot render this model's chat template, or only for single questions, the first line of the "
        "Modelfile says so. Use llama.cpp's server then.",
        "",
        "llama.cpp's server, with the chat template that is in the file:",
        "",
        *_shell(f"llama-server -m {path} --jinja -c {plan.model.max_sequence_length}"),
        "LM Studio, which looks for `<publisher>/<model>/<file>`:",
        "",
        *_shell(
            f"mkdir -p ~/.lmstudio/models/finetuned/{name}",
            f"cp {path} ~/.lmstudio/models/finetuned/{name}/{file}",
        ),
    ]


def _lora_gguf(plan: Plan, prepared: Prepared, path: str) -> list[str]:
    return [
        f"## The adapter as GGUF: {path}",
        "",
        f"llama.cpp's server, beside a GGUF of the base model `{_base(prepared)}`, here `base.gguf`:",
        "",
        *_shell(
            f"llama-server -m base.gguf --lora {path} -c {plan.model.max_sequence_length} \\",
            f"  --jinja --chat-template-file {path.rpartition('/')[0]}/chat_template.jinja",
        ),
    ]


def _merged(name: str, folder: str) -> list[str]:
    return [
        f"## The merged model: {folder}/",
        "",
        f"vLLM, without LoRA. `sha256sum --check SHA256SUMS` in `{folder}` finds incomplete files.",
        "",
        *_shell(
            f"vllm serve ./{folder} --served-model-name {name} --chat-template ./{folder}/chat_template.jinja",
        ),
    ]


def _adapter(plan: Plan, prepared: Prepared) -> list[str]:
    name, model = plan.job.name, prepared.model
    parts = [
        "## The adapter",
        "",
        f"vLLM, with the base model `{model.reference}` (revision `{model.revision}`):",
        "",
        *_shell(
            f"vllm serve {model.reference} --enable-lora --max-lora-rank {_vllm_rank(plan.training.lora.rank)} \\",
            f"  --lora-modules {name}=./adapter --chat-template ./adapter/chat_template.jinja",
        ),
    ]
    if plan.model.hub is None:
        parts += [f"`{model.reference}` is the name of the model's folder in the job; use your own path instead.", ""]
    if model.stored_in_4bit:
        parts += [
            "The base is stored in 4 bit, so vLLM needs the package `bitsandbytes`. Without it, use the merged model "
            "(`spec.export.merged`) or the 16-bit model that the base was made from.",
            "",
        ]
    return parts


def _base(prepared: Prepared) -> str:
    """Return the model to make the base's GGUF from: weights stored in 4 bit cannot be converted."""
    return (prepared.original or prepared.model).reference


def _shell(*lines: str) -> list[str]:
    return ["```sh", *lines, "```", ""]


def _template_note(prepared: Prepared) -> str:
    note = {
        "Model": "The model was trained with its own chat template; every server below uses it.",
        "Alpaca": (
            "The model was trained with the Alpaca text (`### Instruction:` and `### Response:`). It is in the files "
            "as a chat template, which the servers below use; do not replace it."
        ),
        "Custom": (
            "The model was trained with the chat template of the job (`dataset.templateRef`). It is in the files, "
            "and the servers below use it; do not replace it."
        ),
    }[prepared.template]
    if not prepared.system_prompt:
        return note
    return (
        f"{note} The model was trained with the system prompt below. Ollama sends it by itself; with the "
        "other servers, send it as the first message:\n\n"
        + "\n".join(f"> {line}" for line in prepared.system_prompt.splitlines())
    )


def _vllm_rank(rank: int) -> int:
    """Return the smallest value that vLLM accepts and that covers the adapter's rank."""
    return next((allowed for allowed in _VLLM_RANKS if allowed >= rank), rank)
