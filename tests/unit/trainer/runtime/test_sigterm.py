"""SIGTERM: at once by default, later where something has to be saved first."""

import os
import signal

import pytest

from finetune_trainer.runtime.sigterm import StopFlag, StopRequested, ignored


def test_by_default_it_ends_the_stage_at_once() -> None:
    stop = StopFlag()
    with stop.installed(), pytest.raises(StopRequested):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_no_library_swallows_it() -> None:
    assert not issubclass(StopRequested, Exception)


def test_deferred_it_is_only_noted() -> None:
    stop = StopFlag()
    with stop.installed(), stop.deferred():
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_after_deferring_it_ends_the_stage_again() -> None:
    stop = StopFlag()
    with stop.installed():
        with stop.deferred():
            pass
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)


def test_handler_is_set_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopFlag().installed(), ignored():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_passed_on_it_reaches_somebody_else() -> None:
    stop, reported = StopFlag(), []
    with stop.installed(), stop.passed_on(lambda: reported.append("stop")):
        os.kill(os.getpid(), signal.SIGTERM)
    assert (reported, stop.requested) == (["stop"], True)
