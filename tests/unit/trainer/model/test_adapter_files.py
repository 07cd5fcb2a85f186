"""The adapter's folder means something on another machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.model import adapter
from finetune_trainer.run_folder.prepared import Prepared

TEMPLATE = "{{ messages[0]['content'] }}"


class _Trained:
    """Writes what PEFT writes of a model that was loaded from `base`."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def save_pretrained(self, folder: str, **_: Any) -> None:
        target = Path(folder)
        target.mkdir()
        config = {"base_model_name_or_path": str(self._base), "r": 8}
        config |= {"target_modules": ["v_proj", "q_proj"], "auto_mapping": {"parent_library": str(self._base)}}
        (target / adapter.CONFIG).write_text(json.dumps(config))
        (target / "README.md").write_text(f"base_model: {self._base}")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    base = tmp_path / "scratch" / "weights"
    base.mkdir(parents=True)
    (base / "tokenizer.json").write_text("{}")
    prepared = Prepared.model_validate(
        {
            "runId": "0" * 64,
            "model": {"revision": "r", "reference": "org/base", "architecture": "LlamaForCausalLM", "files": []},
            "template": "Custom",
            "chatTemplate": TEMPLATE,
            "stopTokenIds": [],
            "stopStrings": [],
            "totalSteps": 1,
            "dataset": {"examples": 1, "supervisedTokens": 1},
            "questions": [],
        }
    )
    adapter.save(_Trained(base), prepared, base, tmp_path / "adapter", TEMPLATE)
    return tmp_path / "adapter"


def test_its_base_is_named_as_in_the_job(saved: Path) -> None:
    assert json.loads((saved / adapter.CONFIG).read_text())["base_model_name_or_path"] == "org/base"


def test_no_file_names_a_path_of_the_pod(saved: Path, tmp_path: Path) -> None:
    assert not [path.name for path in saved.iterdir() if str(tmp_path) in path.read_text()]


def test_it_brings_tokenizer_and_chat_template(saved: Path) -> None:
    assert (saved / "chat_template.jinja").read_text() == TEMPLATE
    assert (saved / "tokenizer.json").is_file()
