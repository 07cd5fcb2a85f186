"""What is said of the tokenized rows."""

from finetune_trainer.data.tokenize import answers_warning


def test_answers_that_are_not_learned_are_reported() -> None:
    assert answers_warning(0) == []
    assert answers_warning(1200)[0].startswith("AnswersLeftOut: 1,200 earlier answers of conversations are not learned")
