"""What the interop tests share."""

from typing import Any

import pytest

from tests.support.smollm2 import model_dir


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """SmolLM2's, with its own chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir(), local_files_only=True)
