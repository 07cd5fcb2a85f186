"""Servers are compared by what their names lead to."""

import socket
from typing import Any

import pytest

from finetune_api.plan import Plan
from finetune_api.policy import Policy
from finetune_trainer.errors import SettingsError
from finetune_trainer.runtime.endpoint_policy import check, check_source
from tests.support.trainer_job import TrainerJob

ADDRESSES = {"s3.example.com": ["10.1.2.3", "10.1.2.4"], "mixed.example.com": ["10.1.2.3", "192.0.2.1"]}


@pytest.fixture(autouse=True)
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names that were looked up."""
    names: list[str] = []

    def lookup(name: str, *_: Any, **__: Any) -> Any:
        names.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in ADDRESSES.get(name, [name])]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return names


def _plan(job: TrainerJob, endpoint: str, *allowed: str) -> Plan:
    job.plan["output"] = {"s3": {"uri": "s3://models/tuned", "endpoint": endpoint}}
    job.plan["policy"] = {"endpoints": list(allowed)}
    return Plan.model_validate(job.plan)


def test_without_a_policy_nothing_is_looked_up(job: TrainerJob, looked_up: list[str]) -> None:
    check(_plan(job, "https://s3.example.com"))
    assert looked_up == []


def test_listed_name_is_not_looked_up(job: TrainerJob, looked_up: list[str]) -> None:
    check(_plan(job, "https://s3.example.com", "*.example.com", "10.0.0.0/8"))
    assert looked_up == []


def test_name_all_of_whose_addresses_are_in_a_range(job: TrainerJob) -> None:
    check(_plan(job, "https://s3.example.com", "10.0.0.0/8"))


def test_name_one_of_whose_addresses_is_outside(job: TrainerJob) -> None:
    with pytest.raises(
        SettingsError, match=r"^spec\.output\.s3\.endpoint leads to mixed\.example\.com \(192\.0\.2\.1\)"
    ):
        check(_plan(job, "https://mixed.example.com", "10.0.0.0/8"))


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:8000", "127.0.0.0/8", "127.0.0.1/32"])
def test_loopback_by_an_entry_that_means_it(entry: str) -> None:
    assert check_source(Policy(endpoints=[entry]), "http://127.0.0.1:8000/a", "field") == ["127.0.0.1"]


@pytest.mark.parametrize("entry", ["0.0.0.0/0", "127.0.0.1:9000", "*.example.com"])
def test_loopback_by_another_entry(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"^field leads to 127\.0\.0\.1"):
        check_source(Policy(endpoints=[entry]), "http://127.0.0.1:8000/a", "field")


def test_name_of_an_allowed_domain_that_leads_to_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADDRESSES, "evil.example.com", ["169.254.169.254"])
    with pytest.raises(SettingsError, match=r"evil\.example\.com \(169\.254\.169\.254\), which belongs to the node"):
        check_source(Policy(endpoints=["*.example.com"]), "http://evil.example.com/a", "field")


def test_host_on_which_programs_disagree() -> None:
    with pytest.raises(
        SettingsError, match=r"^field has a host that not all programs parse in the same way; correct it$"
    ):
        check_source(Policy(), "http://127.0.0.1\\.example.com/a", "field")
