"""The whole behaviour of the operator for one FineTuneJob, as a pure function."""

from datetime import datetime

from finetune_operator.decision import Decision
from finetune_operator.observation import Observation
from finetune_operator.job_settings import Settings


def decide(observation: Observation, now: datetime, settings: Settings) -> Decision:
    """Return what to do next. `now` is aware, in UTC."""
    raise NotImplementedError
