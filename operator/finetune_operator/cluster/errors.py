"""What can go wrong with the API server; everything that the client raises."""


class KubeError(Exception):
    """The API server refused or could not be asked. The base of all below."""


class Unreachable(KubeError):  # noqa: N818 - a state of the connection
    """No answer: refused, reset or timed out. It may or may not have done what it was asked."""


class ApiError(KubeError):
    """An answer that is no success.

    Attributes:
        status: the HTTP status.
        reason: the CamelCase reason of the Status object, e.g. AlreadyExists, Conflict.
        message: the API server's sentence.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):  # noqa: N818
    """404."""


class Conflict(ApiError):  # noqa: N818
    """409: the object has changed since it was read, or another object has its name."""


class AlreadyExists(Conflict):
    """409 with the reason AlreadyExists."""


class LeadershipLost(Exception):  # noqa: N818 - a state
    """This replica must not change anything any more. Nobody handles this: it ends the process.

    No KubeError on purpose, for these are tried again.
    """
