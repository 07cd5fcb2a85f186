"""Chat templates, and values for them, that do not work, and the one sentence that each of them gets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import tiny_model
from tests.support.trainer_job import TrainerJob, write_rows

Change = Callable[[Path, TrainerJob], None]
PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
# The last answer shows an empty thinking part, and a question too where thinking is off: as Qwen3's.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and '</think>' not in m['content'] %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    f"{ASK}{{% if add_generation_prompt and enable_thinking is false %}}<think></think>{{% endif %}}"
)
OWN = "the chat template of dataset.templateRef"
MODELS = "the model's chat template"
KEEPS = (
    "does not keep what it showed before an answer once the answer is there, so the answers cannot be told from the "
    "questions"
)
OTHER = "set dataset.promptTemplate to Alpaca, or give a template of your own in dataset.templateRef"


class Case(NamedTuple):
    name: str
    change: Change
    code: int
    sentence: str


def _own(jinja: str | bytes, **dataset: Any) -> Change:
    """The job brings this template."""

    def change(model: Path, job: TrainerJob) -> None:
        path = job.root / "chat.jinja"
        path.write_bytes(jinja.encode() if isinstance(jinja, str) else jinja)
        job.plan["dataset"] |= {"templateFile": str(path)} | dataset

    return change


def _models(jinja: str, **dataset: Any) -> Change:
    """The model's tokenizer has this template."""

    def change(model: Path, job: TrainerJob) -> None:
        (model / "chat_template.jinja").write_text(jinja)
        job.plan["dataset"] |= {"promptTemplate": "Model"} | dataset

    return change


def _plan(**dataset: Any) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        job.plan["dataset"] |= dataset

    return change


def _all(*changes: Change) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        for each in changes:
            each(model, job)

    return change


def _values(jinja: str = PLAIN + ASK + "{{ depth }}", **kwargs: str) -> Change:
    return _own(jinja, chatTemplateKwargs=kwargs)


def _untrained(*tokens: int) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        shutil.rmtree(model)
        tiny_model.build(model, untrained=tokens)

    return change


def _no_template(model: Path, job: TrainerJob) -> None:
    (model / "chat_template.jinja").unlink()


def _no_eos(model: Path, job: TrainerJob) -> None:
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))


def _rows(*conversation: str) -> Change:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(conversation)]

    def change(model: Path, job: TrainerJob) -> None:
        good = [
            {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}!"}]}
            for i in range(60)
        ]
        write_rows(job.dataset, [*good, {"messages": messages}])

    return change


def _stand_in(*untrained: int, template: bool) -> Change:
    """A base model as unsloth/llama-3-8b-bnb-4bit: stored in 4 bit, with control tokens that it never saw."""

    def change(model: Path, job: TrainerJob) -> None:
        _untrained(*untrained)(model, job)
        config = json.loads((model / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (model / "config.json").write_text(json.dumps(config))
        if not template:
            _no_template(model, job)

    return change


def _missing(model: Path, job: TrainerJob) -> None:
    job.plan["dataset"]["templateFile"] = str(job.root / "nothing.jinja")


def _folder(model: Path, job: TrainerJob) -> None:
    job.plan["dataset"]["templateFile"] = str(job.root)


CASES = [
    Case(
        "no file",
        _missing,
        64,
        "dataset.templateRef: there is no file {root}/nothing.jinja; correct its name or key",
    ),
    Case("a folder", _folder, 64, "dataset.templateRef: {root} cannot be read: Is a directory; correct its key"),
    Case("empty", _own(" \n"), 64, "dataset.templateRef: chat.jinja is empty; write a chat template (Jinja) into it"),
    Case(
        "not UTF-8",
        _own("{# 스쿼트 #}".encode("cp949")),
        64,
        "dataset.templateRef: chat.jinja is not UTF-8 text; save it as UTF-8",
    ),
    Case(
        "syntax error",
        _own(PLAIN + "\n{% if add_generation_prompt %}\nassistant:"),
        64,
        f"{OWN} has an error in line 5: Unexpected end of template. Jinja was looking for the following tags: "
        "'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'; correct it",
    ),
    Case(
        "unknown filter",
        _own("{{ messages | shout }}"),
        64,
        f"{OWN} has an error in line 1: No filter named 'shout'; correct it",
    ),
    Case(
        "no messages",
        _own("<|im_start|>assistant\n<|im_end|>"),
        64,
        f"{OWN} does not show the whole user message; correct it",
    ),
    Case(
        "messages without their content",
        _own(PLAIN.replace("m['content']", "m['text']") + ASK),
        64,
        f"{OWN} does not show the whole user message; correct it",
    ),
    Case(
        "only the last message",
        _own("<|im_start|>user\n{{ messages[-1]['content'] }}<|im_end|>\n" + ASK),
        64,
        f"{OWN} does not show the whole user message; correct it",
    ),
    Case(
        "no end of an answer",
        _own("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"),
        64,
        f"{OWN} does not end an answer with a token at which the model stops; correct it",
    ),
    Case(
        "no prompt for an answer, but an ending",
        _own("{% for m in messages %}{{ m['content'] }}{% endfor %}{{ eos_token if add_generation_prompt }}"),
        64,
        f"{OWN} {KEEPS}; correct it",
    ),
    Case(
        "forbidden access",
        _own("{{ messages.__class__.__mro__ }}"),
        64,
        f"{OWN} refuses a conversation of user, assistant: access to attribute '__class__' of 'list' object is unsafe; "
        "correct it",
    ),
    Case(
        "endless loop",
        _own("{% for i in range(10 ** 9) %}{% endfor %}"),
        64,
        f"{OWN} refuses a conversation of user, assistant: Range too big. The sandbox blocks ranges larger than "
        "MAX_RANGE (100000); correct it",
    ),
    Case(
        "include of another file",
        _own("{% include '/etc/passwd' %}"),
        64,
        f"{OWN} refuses a conversation of user, assistant: no loader for this environment specified; correct it",
    ),
    Case(
        "system prompt without a place",
        _own(NO_SYSTEM + PLAIN + ASK, systemPrompt="짧게 답해."),
        64,
        f"{OWN} has no place for dataset.systemPrompt: it refuses a conversation of system, user, assistant: "
        "System role not supported; leave that out or show the system message",
    ),
    Case(
        "system prompt that is not shown",
        _own(PLAIN.replace("<|im_start|>", "{% if m['role'] != 'system' %}<|im_start|>", 1).replace(
            "<|im_end|>\n", "<|im_end|>\n{% endif %}") + ASK, systemPrompt="짧게 답해."),
        64,
        f"{OWN} has no place for dataset.systemPrompt: it does not show the whole system message; "
        "leave that out or show the system message",
    ),
    Case(
        "control tokens that were never trained",
        _all(_untrained(1), _own(PLAIN + ASK)),
        66,
        f"tiny was never trained on <|im_start|>, which {OWN} writes; write other text there, "
        "set dataset.promptTemplate to Alpaca instead, or use the -Instruct repository",
    ),
    Case(
        "one row that it refuses",
        _all(
            _own("{% for m in messages %}{% if '비밀' in m['content'] %}{{ raise_exception(m['content']) }}{% endif %}"
                 "{% endfor %}" + PLAIN + ASK),
            _rows("비밀이 뭐야?", "몰라"),
        ),
        65,
        f'source "coach", line 61: {OWN} refuses its conversation of user, assistant; '
        "correct this, or set dataset.checks.invalidRows to Drop",
    ),
    Case(
        "one row that it cuts",
        _all(_own(PLAIN.replace("m['content']", "m['content'][:40]") + ASK), _rows("운동 " * 40, "몰라")),
        65,
        f'source "coach", line 61: {OWN} does not show the whole user message; '
        "correct this, or set dataset.checks.invalidRows to Drop",
    ),
    Case(
        "reserved name",
        _values(messages="[]"),
        64,
        "dataset.chatTemplateKwargs: messages is set by the trainer and cannot be given; leave it out",
    ),
    Case(
        "reserved token",
        _values(bos_token="<s>"),
        64,
        "dataset.chatTemplateKwargs: bos_token is set by the trainer and cannot be given; leave it out",
    ),
    Case(
        "impossible name",
        _values(**{"enable-thinking": "false"}),
        64,
        'dataset.chatTemplateKwargs: "enable-thinking" is not a name that a chat template can read; '
        "use letters, digits and _",
    ),
    Case(
        "misspelt name",
        _values(dept="3"),
        64,
        "dataset.chatTemplateKwargs: the chat template does not read dept; correct the name or leave it out",
    ),
    Case(
        "value that the model's template does not read",
        _plan(chatTemplateKwargs={"enable_thinking": "false"}),
        64,
        "dataset.chatTemplateKwargs: the chat template does not read enable_thinking; "
        "correct the name or leave it out",
    ),
    Case(
        "value for the Alpaca text",
        _plan(promptTemplate="Alpaca", chatTemplateKwargs={"enable_thinking": "false"}),
        64,
        "dataset.chatTemplateKwargs is set, but the Alpaca template, which is used here, has no such values; "
        "remove it or set dataset.promptTemplate to Model",
    ),
    Case(
        "value for a base model",
        _all(_untrained(2), _plan(chatTemplateKwargs={"enable_thinking": "false"})),
        64,
        "dataset.chatTemplateKwargs is set, but the Alpaca template, which is used here, has no such values; "
        "remove it or set dataset.promptTemplate to Model",
    ),
    Case(
        "value that the template refuses",
        _values("{% if depth > 2 %}{{ raise_exception('too deep') }}{% endif %}" + PLAIN + ASK, depth="3"),
        64,
        f"{OWN} refuses a conversation of user, assistant: too deep; correct it",
    ),
    Case(
        "text where the template wants a number",
        _values("{% if depth > 2 %}{% endif %}" + PLAIN + ASK, depth="three"),
        64,
        f"{OWN} refuses a conversation of user, assistant: '>' not supported between instances of 'str' and 'int'; "
        "correct it",
    ),
    Case(
        "thinking in an answer where thinking is off",
        _all(
            _models(THINKING, chatTemplateKwargs={"enable_thinking": "false"}),
            _rows("뭐야?", "<think>음</think>몰라"),
        ),
        65,
        f'source "coach", line 61: {MODELS} does not keep what it showed before the answer once the answer is there, '
        "as with a <think> part in it where thinking is off; leave that out or correct dataset.chatTemplateKwargs; "
        "correct this, or set dataset.checks.invalidRows to Drop",
    ),
    Case(
        "chat template on a base model",
        _all(_untrained(1, 2), _plan(promptTemplate="Model")),
        66,
        "tiny is a base model: its weights were never trained on <|im_start|>, <|im_end|> of its chat template; "
        "set dataset.promptTemplate to Alpaca or use the -Instruct repository",
    ),
    Case(
        "chat template on a base model that is stored in 4 bit",
        _all(_stand_in(2, template=True), _plan(promptTemplate="Model")),
        66,
        "tiny is a base model: its weights were never trained on <|im_end|> of its chat template; "
        "set dataset.promptTemplate to Alpaca or use the -Instruct repository",
    ),
    Case(
        "model without a chat template",
        _all(_no_template, _plan(promptTemplate="Model")),
        66,
        "the model's tokenizer has no chat template, as is usual for base models; "
        "set dataset.promptTemplate to Alpaca or use the -Instruct repository",
    ),
    Case(
        "Alpaca text without an end of text",
        _all(_no_eos, _plan(promptTemplate="Alpaca")),
        66,
        "the model's tokenizer has no end-of-text token (eos_token); correct tokenizer_config.json",
    ),
    Case(
        "model's template that refuses",
        _models("{{ raise_exception('no thanks') }}"),
        66,
        f"{MODELS} refuses a conversation of user, assistant: no thanks; {OTHER}",
    ),
    Case(
        "model's template with a syntax error",
        _models("\n{% for m in messages %}"),
        66,
        f"{MODELS} has an error in line 2: Unexpected end of template. Jinja was looking for the following tags: "
        f"'endfor' or 'else'. The innermost block that needs to be closed is 'for'; {OTHER}",
    ),
    Case(
        "model's template that rewrites the question",
        _models("{% for m in messages %}<|im_start|>{{ loop.length }}{{ m['content'] }}<|im_end|>{% endfor %}"),
        66,
        f"{MODELS} {KEEPS}; {OTHER}",
    ),
    Case(
        "model's template without end of turn",
        _models("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"),
        66,
        f"{MODELS} does not end an answer with a token at which the model stops; {OTHER}",
    ),
    Case(
        "model's template that has no place for a system prompt, not even in the question",
        _models(
            "{% if '짧게' in messages | string %}{{ raise_exception('no instructions') }}{% endif %}" + PLAIN + ASK,
            systemPrompt="짧게 답해.",
        ),
        66,
        f"{MODELS} has no place for dataset.systemPrompt: it refuses a conversation of system, user, assistant: "
        "no instructions; leave that out or set dataset.promptTemplate to Alpaca",
    ),
]  # fmt: skip


def _prepare(job: TrainerJob, good_model: Path, tmp_path: Path, change: Change) -> int:
    model = shutil.copytree(good_model, tmp_path / "tiny")
    job.plan["model"]["path"] = str(model)
    change(model, job)
    return job.run("prepare")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_template_ends_prepare_with_a_sentence(
    case: Case, job: TrainerJob, good_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = _prepare(job, good_model, tmp_path, case.change)
    result = job.result()
    assert result["message"] == case.sentence.replace("{root}", str(job.root))
    assert code == case.code
    assert "Traceback" not in "".join(capfd.readouterr())
    assert result["message"] in (job.output / result["log"]).read_text()


GOOD: list[tuple[str, Change, str, str]] = [
    ("own template", _own(PLAIN + ASK), "Custom", PLAIN + ASK),
    (
        "values",
        _values("{{ depth }}" + PLAIN + ASK, depth="3"),
        "Custom",
        "{% set depth = 3 %}{{ depth }}" + PLAIN + ASK,
    ),
    (
        "thinking off",
        _models(THINKING, chatTemplateKwargs={"enable_thinking": "false"}),
        "Model",
        "{% set enable_thinking = false %}" + THINKING,
    ),
]


@pytest.mark.parametrize(("change", "kind", "jinja"), [c[1:] for c in GOOD], ids=[c[0] for c in GOOD])
def test_the_template_with_its_values_is_handed_on(
    job: TrainerJob, good_model: Path, tmp_path: Path, change: Change, kind: str, jinja: str
) -> None:
    assert _prepare(job, good_model, tmp_path, change) == 0
    result = job.result()
    (description,) = job.output.rglob("prepared.json")
    prepared = json.loads(description.read_text())
    assert result["model"]["template"] == prepared["template"] == kind
    assert prepared["chatTemplate"] == jinja


@pytest.mark.parametrize("template", [True, False])
def test_a_base_model_that_is_stored_in_4_bit_gets_the_alpaca_text(
    job: TrainerJob, good_model: Path, tmp_path: Path, template: bool
) -> None:
    assert _prepare(job, good_model, tmp_path, _stand_in(1, 2, template=template)) == 0
    assert job.result()["model"]["template"] == "Alpaca"


def test_a_system_prompt_goes_into_the_question_where_the_model_has_no_place_for_it(
    job: TrainerJob, good_model: Path, tmp_path: Path
) -> None:
    assert _prepare(job, good_model, tmp_path, _models(NO_SYSTEM + PLAIN + ASK, systemPrompt="짧게 답해.")) == 0


def test_other_words_in_the_template_make_another_run(job: TrainerJob, good_model: Path, tmp_path: Path) -> None:
    runs = set()
    for number, jinja in enumerate((PLAIN + ASK, "Coach.\n" + PLAIN + ASK)):
        (job.root / "plan.json").unlink(missing_ok=True)
        assert _prepare(job, good_model, tmp_path / str(number), _own(jinja)) == 0
        runs.add(job.result()["runId"])
    assert len(runs) == 2


def test_earlier_answers_that_are_not_learned_are_reported(job: TrainerJob, good_model: Path, tmp_path: Path) -> None:
    thinking_off = _models(THINKING.replace("== 'assistant' and", "== 'assistant' and loop.last and"))
    change = _all(
        thinking_off, _plan(chatTemplateKwargs={"enable_thinking": "false"}), _rows("뭐야?", "하나", "또?", "둘")
    )
    assert _prepare(job, good_model, tmp_path, change) == 0
    assert any(w.startswith("AnswersLeftOut: 1 earlier") for w in job.result()["dataset"]["warnings"])
