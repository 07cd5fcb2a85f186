"""Each test of the integration tests has a namespace of its own."""

import re

import pytest

from tests.support.namespaces import namespace_of

LONG = "tests/integration/test_stages.py::test_a_stage_that_the_cluster_refuses_for_ever_says_so_in_words[{}]"


def test_parametrized_tests_of_a_long_name_do_not_share_one() -> None:
    assert namespace_of(LONG.format("quota")) != namespace_of(LONG.format("webhook"))


def test_tests_of_the_same_name_in_two_files_do_not_share_one() -> None:
    assert namespace_of("a.py::test_it") != namespace_of("b.py::test_it")


@pytest.mark.parametrize("node_id", [LONG.format("quota"), "a.py::test_it", "a.py::test_it[-1]", "a.py::test_it[...]"])
def test_a_name_is_a_dns_label_with_room_for_a_suffix(node_id: str) -> None:
    name = namespace_of(node_id)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 50


def test_a_name_tells_the_test() -> None:
    assert namespace_of("a.py::test_it_runs[gpu]").startswith("test-it-runs-gpu-")
