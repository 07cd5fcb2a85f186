"""The texts of report.html, one module for each language with the same keys and placeholders."""

from collections.abc import Mapping
from typing import Literal

from finetune_api.report import LanguageMix
from finetune_api.spec import ReportLanguage
from finetune_trainer.report.texts import en, ko

Texts = Mapping[str, str]
Language = Literal["en", "ko"]

ENGLISH: Texts = en.TEXTS
LANGUAGES: dict[Language, Texts] = {"en": ENGLISH, "ko": ko.TEXTS}


def choose(wanted: ReportLanguage, letters: LanguageMix | None) -> Language:
    """Return the language of the report. `letters`: those of the dataset, which decide for Auto."""
    if wanted != "Auto":
        return wanted
    return "ko" if letters is not None and letters.hangul > 0.5 else "en"
