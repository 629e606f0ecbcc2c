"""The bound of the calls that run or wait, and of what their requests hold."""

from ..status import StatusError


class WaitingRoom:
    """One for all protocols; used in the event loop alone.

    Attributes:
      calls: that are inside.
      max_bytes: of their requests.
    """

    def __init__(self, max_calls: int, max_bytes: int):
        self.calls = 0
        self._bytes = 0
        self.max_bytes = max_bytes
        self._max_calls = max_calls

    def enter(self, size: int) -> "Place":
        """Returns a place for a call.

        Args:
          size: bytes of its request.

        Raises:
          StatusError: RESOURCE_EXHAUSTED; all places, or bytes, are taken.
        """
        if self.calls >= self._max_calls:
            raise _full()
        self.calls += 1
        place = Place(self)
        try:
            place.grow(size)
        except StatusError:
            place.leave()
            raise
        return place

    def take(self, size: int) -> None:
        """Counts bytes, or negative ones; raises as `enter`."""
        if self._bytes + size > self.max_bytes and size > 0:
            raise _full()
        self._bytes += size


class Place:
    """A call's place in the room."""

    def __init__(self, room: WaitingRoom):
        self._room = room
        self._size = 0

    def grow(self, size: int) -> None:
        """Counts so many bytes more; raises as `WaitingRoom.enter`."""
        self._room.take(size)
        self._size += size

    def leave(self) -> None:
        """Frees the place, once."""
        self._room.take(-self._size)
        self._room.calls -= 1


def _full():
    return StatusError("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
