"""Where the pod that leads is reached."""

import pytest

from finetune_trainer.runtime.node import address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("coach-0.train-coach", ("coach-0.train-coach", 29400)),
        ("127.0.0.1:29500", ("127.0.0.1", 29500)),
        ("::1", ("::1", 29400)),
        ("[::1]", ("::1", 29400)),
        ("[::1]:29500", ("::1", 29500)),
    ],
)
def test_a_port_may_follow_the_host(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize("text", ["", ":29500", "host:", "host:0", "host:65536", "host:port"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        address(text)
