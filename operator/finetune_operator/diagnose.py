"""Why a pod does not run: the cause of most first-day failures, in the user's terms."""

from finetune_operator.observation import Object, Observation


def needs_events(observation: Observation) -> tuple[Object, ...]:
    """Return the pods and Jobs whose Events explain why nothing runs; list those by `involvedObject.uid`."""
    raise NotImplementedError
