"""What the interop tests share."""

from typing import Any

import pytest

from local_platform.smollm2 import model_dir
from tests.training import served as served_job
from tests.training.served import Served


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """SmolLM2's, with its own chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir(), local_files_only=True)


@pytest.fixture(scope="session")
def served() -> Served:
    """The result of a job that learned one answer."""
    return served_job.result()
