"""Names for the namespaces of tests."""

import hashlib
import re

# Of 63 characters; what remains is for tests that need a second one beside their own.
_MAXIMUM = 50


def namespace_of(node_id: str) -> str:
    """Return a name for the namespace of one test, by pytest's id of it: readable, and no other test's.

    The readable part is cut where parametrized tests of a long name may still be the same, so a checksum ends it.
    """
    checksum = hashlib.sha256(node_id.encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", node_id.rpartition("::")[2].lower()).strip("-")
    return f"{words[: _MAXIMUM - len(checksum) - 1].strip('-')}-{checksum}"
