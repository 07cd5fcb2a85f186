"""Sentences that tell users what to do, where several messages need the same one."""

RECREATE = "Delete this FineTuneJob and create it again."
