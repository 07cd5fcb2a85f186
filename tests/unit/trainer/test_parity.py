"""When a GGUF counts as the model that was trained."""

import pytest

from finetune_api.spec import GGUFType
from finetune_trainer.parity import Figures, judge, limits

GOOD = Figures(top1=0.99, nll=1.01, nll_base=2.5, nll_tuned=1.0)


@pytest.mark.parametrize("gguf_type", ["F16", "Q8_0", "Q4_K_M"])
def test_a_faithful_file_passes(gguf_type: GGUFType) -> None:
    assert judge(GOOD, limits(gguf_type, trained_in_4bit=False)) is None


@pytest.mark.parametrize("trained_in_4bit", [True, False])
@pytest.mark.parametrize("gguf_type", ["F16", "BF16"])
def test_a_file_of_the_base_fails(gguf_type: GGUFType, trained_in_4bit: bool) -> None:
    base = Figures(top1=0.97, nll=1.2, nll_base=1.2, nll_tuned=1.0)
    assert judge(base, limits(gguf_type, trained_in_4bit)) is not None


def test_other_predictions_fail_whatever_the_loss() -> None:
    figures = Figures(top1=0.5, nll=1.0, nll_base=2.5, nll_tuned=1.0)
    assert judge(figures, limits("Q8_0", trained_in_4bit=False)) == (
        "it predicts 50% of the tokens as the trained model does, at least 90% is needed"
    )


def test_a_lost_gain_fails_where_the_loss_alone_would_pass() -> None:
    figures = Figures(top1=0.99, nll=1.15, nll_base=1.2, nll_tuned=1.0)
    assert "keeps 25% of what training gained" in str(judge(figures, limits("BF16", trained_in_4bit=False)))


def test_the_loss_of_quantizing_is_not_taken_for_a_loss_of_what_was_learned() -> None:
    figures = Figures(top1=0.818, nll=2.248, nll_base=2.396, nll_tuned=2.178)
    assert judge(figures, limits("Q4_K_M", trained_in_4bit=False)) is None


def test_a_gain_too_small_to_measure_is_not_judged() -> None:
    figures = Figures(top1=0.99, nll=1.02, nll_base=1.01, nll_tuned=1.0)
    assert figures.retained_gain is None
    assert judge(figures, limits("Q8_0", trained_in_4bit=False)) is None
