"""How long servers are waited for, on a clock that tests move."""

import logging
import socket
from collections.abc import Callable, Iterator

import pytest

from finetune_trainer.errors import AccessDeniedError, NoAnswerError, UnavailableError
from finetune_trainer.network import patience
from finetune_trainer.network.patience import Watch

OUTAGE, UNKNOWN_NAME = 1800, 120


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of the table, which other tests do not have."""
    monkeypatch.setattr(patience, "OUTAGE", OUTAGE)
    monkeypatch.setattr(patience, "UNKNOWN_NAME", UNKNOWN_NAME)


class Server:
    """Answers once it was away for `seconds`; every try takes `each` seconds."""

    def __init__(self, away: float, each: float = 1.0, *, unknown_name: bool = False) -> None:
        self.now, self.tries = 0.0, 0
        self._away, self._each, self._unknown_name = away, each, unknown_name
        self.arrived: Callable[[], int] = lambda: 0

    def ask(self) -> str:
        self.tries += 1
        self.now += self._each
        if self.now < self._away:
            raise NoAnswerError("the hub does not answer (ConnectError)", unknown_name=self._unknown_name)
        return "here"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patiently(self) -> str:
        return patience.patiently(self.ask, self.arrived, clock=lambda: self.now, sleep=self.sleep)


@pytest.fixture
def watch() -> Iterator[list[str]]:
    seen: list[str] = []
    with patience.watched(Watch(lambda: seen.append("waits"), lambda: seen.append("over"), lambda: False)):
        yield seen


def test_a_server_that_answers_is_asked_once(watch: list[str]) -> None:
    server = Server(away=0)
    assert (server.patiently(), server.tries, watch) == ("here", 1, [])


@pytest.mark.parametrize("each", [1.0, 40.0])
def test_it_is_tried_for_half_an_hour(each: float) -> None:
    assert Server(away=OUTAGE, each=each).patiently() == "here"
    server = Server(away=float("inf"), each=each)
    with pytest.raises(UnavailableError, match=r"the hub does not answer \(ConnectError\) \(tried for 3\d min\)"):
        server.patiently()
    assert OUTAGE <= server.now <= OUTAGE + patience.LONGEST_PAUSE + 2 * each


def test_a_name_that_dns_does_not_know_is_tried_for_two_minutes() -> None:
    server = Server(away=float("inf"), unknown_name=True)
    with pytest.raises(UnavailableError):
        server.patiently()
    assert UNKNOWN_NAME <= server.now < 2 * UNKNOWN_NAME


def test_it_is_tried_often_at_first_and_at_least_every_minute() -> None:
    server = Server(away=60)
    server.patiently()
    assert server.tries == 5
    server = Server(away=OUTAGE)
    server.patiently()
    assert 30 <= server.tries <= 40


def test_what_was_given_up_is_not_tried_again_by_a_caller_that_is_patient_too() -> None:
    server = Server(away=float("inf"))
    with pytest.raises(UnavailableError):
        patience.patiently(server.patiently, clock=lambda: server.now, sleep=server.sleep)
    assert server.now < 2 * OUTAGE


def test_a_refusal_is_no_outage() -> None:
    tries = []

    def refuse() -> None:
        tries.append(1)
        raise AccessDeniedError("the key is wrong")

    with pytest.raises(AccessDeniedError):
        patience.patiently(refuse)
    assert len(tries) == 1


def test_the_time_begins_again_while_files_arrive() -> None:
    server = Server(away=3 * OUTAGE, each=OUTAGE / 2)
    server.arrived = lambda: server.tries
    assert server.patiently() == "here"


def test_waiting_is_shown_and_logged(watch: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Server(away=10).patiently()
    assert watch == ["waits", "waits", "over"]
    assert caplog.messages[0] == "the hub does not answer (ConnectError); trying again for another 30 min"
    assert caplog.messages[-1] == "the server answers again"


def test_sigterm_ends_the_wait() -> None:
    server = Server(away=float("inf"))
    with (
        patience.watched(Watch(lambda: None, lambda: None, lambda: server.now > 100)),
        pytest.raises(UnavailableError),
    ):
        server.patiently()
    assert server.now < 105


def test_what_can_be_left_out_does_not_wait() -> None:
    server = Server(away=float("inf"))
    with pytest.raises(UnavailableError, match=r"^the hub does not answer \(ConnectError\)$"), patience.brief():
        server.patiently()
    assert server.tries == 1


@pytest.mark.parametrize(
    ("number", "unknown"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False), (socket.EAI_FAIL, False)]
)
def test_an_unknown_name_is_recognized_behind_the_errors_of_libraries(number: int, unknown: bool) -> None:
    def fail() -> None:
        try:
            raise socket.gaierror(number, "it")
        except OSError as error:
            raise RuntimeError("a library's") from error

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert patience.is_unknown_name(caught.value) is unknown
