"""Everything that the client of the API server raises."""


class KubeError(Exception):
    """The API server refused a request or could not be reached. The base class of all below but LeadershipLost."""


class Unreachable(KubeError):  # noqa: N818 - a state of the connection
    """No answer: the connection was refused or reset, or timed out. The request may have been carried out or not."""


class ApiError(KubeError):
    """An answer that is not a success.

    Attributes:
        status: the HTTP status.
        reason: the CamelCase reason of the Status object, e.g. AlreadyExists, Conflict.
        message: the API server's message.
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
    """This replica must not change anything any more. It is never handled, so it ends the process.

    It is not a KubeError on purpose: a pass that ends with a KubeError is repeated.
    """
