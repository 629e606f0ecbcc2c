"""Ports: written as one word, and asked for before anything is loaded."""

import socket


def address(host: str, port: int) -> str:
    """Returns a host and port as one word."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def expect_free(host: str, port: int) -> None:
    """Raises OSError, with a sentence for the user, where a port is taken.

    Args:
      host: the address to listen on, such as "127.0.0.1" or "::1".
      port: its number.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an ended server that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                error.errno,
                "Expected a free port. Received: "
                f"{address(host, port)} ({error.strerror}).",
            ) from None
