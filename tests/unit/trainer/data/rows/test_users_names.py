"""Reasons name the user's own columns."""

from finetune_trainer.data.rows.columns import in_users_names


def test_a_mapped_field_has_the_users_name() -> None:
    assert (
        in_users_names('field "output" is missing or empty', {"output": "답변"}) == 'field "답변" is missing or empty'
    )


def test_other_fields_keep_their_names() -> None:
    assert in_users_names('field "output" is not text', {"input": "질문"}) == 'field "output" is not text'
