"""A client of TensorFlow Serving for the exported models.

    from serving.client import Client

What is named here is imported when it is first used, so that the command's
`--help` waits for nothing.
"""

import importlib

_ERRORS = (
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "ServingError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
)
_MODULES = {
    "AsyncClient": ".client",
    "Client": ".client",
    **dict.fromkeys(_ERRORS, ".errors"),
}
__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)
