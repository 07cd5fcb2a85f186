"""Keeps Python's garbage collector from going through all that stays again and again.

Modules, and what the watches keep of thousands of FineTuneJobs, are a million objects, which a full collection looks
at one by one while nothing else runs: half a second, several times a minute under load.
"""

import gc


def settle() -> None:
    """Collect what is garbage now, and leave what is not to the next call of this function.

    https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
