"""llama.cpp's server renders conversations with its own Jinja as training did, and makes the trained token ids of them.

The program behind it is llama.cpp's code for chats: what `llama-server --jinja` runs between a request and the model.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import DatasetPlan
from finetune_trainer import gguf, template_choice
from finetune_trainer.data import template
from finetune_trainer.data.example import Message
from tests.support import tiny_model
from tests.support.smollm2 import cache
from tests.support.tokenizer_families import FAMILIES, Family

SYSTEM = "너는 헬스 코치다.\n짧게 답해라."
QUESTIONS = ("스쿼트는?", "몇 번?")
# A template of a job's own: it has no place for a system message but the first question.
CUSTOM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ '질문: ' + (system + '\n\n' if loop.first and system else '') "
    "+ m['content'] | trim + '\n' }}{% else %}{{ '답: ' + m['content'] + eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '답: ' }}{% endif %}"
)
DATASET = DatasetPlan.model_validate(
    {"sources": [], "format": "Auto", "promptTemplate": "Auto", "minimumExamples": 50, "invalidRows": "Fail"}
    | {"holdoutPercent": 5}
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """GGUF files by the name of their template, converted as export does it."""
    folder = tmp_path_factory.mktemp("llama-chat")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))
        for name, jinja in {"model": None, "custom": CUSTOM, "alpaca": template.ALPACA_JINJA}.items():
            base = tiny_model.build(folder / name)
            if jinja is not None:
                (base / "chat_template.jinja").write_text(jinja, encoding="utf-8")
            made[name] = folder / f"{name}.gguf"
            gguf.convert(base, made[name], "F16", folder, lambda percent: None)
    return made


def served(path: Path, messages: list[Message], jinja: Path | None = None) -> dict[str, Any]:
    """What llama.cpp's server sends to the model: `text` and `ids`."""
    command = [str(cache() / "bin" / "llama-chat"), str(path), *([str(jinja)] if jinja else [])]
    done = subprocess.run(command, input=json.dumps(messages).encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def conversation(system: str | None) -> list[Message]:
    answer: Message = {"role": "assistant", "content": "천천히 하세요."}
    return [*template.conversation(system, QUESTIONS[0]), answer, *template.conversation(None, QUESTIONS[1])]


@pytest.mark.parametrize("system", [SYSTEM, None])
@pytest.mark.parametrize("name", ["model", "custom", "alpaca"])
def test_the_template_in_the_file_makes_the_trained_tokens(
    files: dict[str, Path], tokenizer: Any, name: str, system: str | None
) -> None:
    jinja = {"model": tokenizer.chat_template, "custom": CUSTOM, "alpaca": template.ALPACA_JINJA}[name]
    for messages in (template.conversation(system, QUESTIONS[0]), conversation(system)):
        text = template.render(tokenizer, jinja, messages, generate=True)
        assert served(files[name], messages) == {"text": text, "ids": template.encode(tokenizer, text)}


@pytest.mark.parametrize("system", [SYSTEM, None])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_the_shipped_template_of_every_family_is_rendered_as_in_training(
    files: dict[str, Path], tokenizer: Any, family: Family, system: str | None, tmp_path: Path
) -> None:
    dataset = DATASET.model_copy(update={"chat_template_kwargs": family.kwargs})
    jinja = template_choice.choose(dataset, family.load(), None, family.name).jinja
    (tmp_path / "chat_template.jinja").write_text(jinja, encoding="utf-8")
    # BOS and EOS are those of the file.
    for messages in (template.conversation(system, QUESTIONS[0]), conversation(system)):
        text = template.render(tokenizer, jinja, messages, generate=True)
        assert served(files["model"], messages, tmp_path / "chat_template.jinja")["text"] == text
