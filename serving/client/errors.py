"""The errors of a client's calls, by the codes that servers answer with."""

from ..status import StatusError


class ServingError(StatusError):
    """A call has no answer.

    Attributes:
      code: the canonical name, as "NOT_FOUND".
      message: the server's reason, or what was expected of the caller.
    """

    def __reduce__(self) -> tuple:  # pickled whole, also to another process
        return type(self), (self.code, self.message)


class InvalidArgument(ServingError, ValueError):
    """The request or an argument is wrong, and will be wrong next time."""


class FailedPrecondition(ServingError):
    """The model has no such signature, or the client is closed."""


class NotFound(ServingError):
    """The server has no such model or version."""


class DeadlineExceeded(ServingError):
    """No answer came within the time there was."""


class Unavailable(ServingError):
    """No server was reached for as long as there was time."""


class ResourceExhausted(ServingError):
    """The server had too many callers for as long as there was time."""


class PermissionDenied(ServingError):
    """The caller may not do this."""


class Unauthenticated(ServingError):
    """The server does not know who calls."""


class Unimplemented(ServingError):
    """The server does not offer this call."""


_ERRORS = {
    "INVALID_ARGUMENT": InvalidArgument,
    "FAILED_PRECONDITION": FailedPrecondition,
    "NOT_FOUND": NotFound,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "PERMISSION_DENIED": PermissionDenied,
    "UNAUTHENTICATED": Unauthenticated,
    "UNIMPLEMENTED": Unimplemented,
}


def serving_error(code: str, message: str) -> ServingError:
    """Returns the ServingError of a canonical code's name."""
    return _ERRORS.get(code, ServingError)(code, message)


def expect(holds: object, rule: str, received: object) -> None:
    """Raises InvalidArgument "Expected rule. Received: ..." unless it holds."""
    if not holds:
        raise InvalidArgument(
            "INVALID_ARGUMENT", f"Expected {rule}. Received: {received}."
        )
