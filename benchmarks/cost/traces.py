"""Seconds by type of operation, from a trace of TensorFlow's profiler.

Events of threads enter; an operation that waits for others inside it counts
for what is left without them.
"""

import collections
import pathlib

# What other operations run inside of, on the same thread or on others.
_CONTAINERS = {
    "If",
    "PartitionedCall",
    "StatefulPartitionedCall",
    "StatelessIf",
    "StatelessWhile",
    "While",
    "_FusedWhile",
}


def own_times(events):
    """Returns {name: time} of one thread, without what events contain.

    Args:
      events: (begin, duration, name); of two, one contains the other or they
        lie apart.
    """
    times = collections.Counter()
    inside = []
    for begin, duration, name in sorted(events, key=lambda e: (e[0], -e[1])):
        while inside and inside[-1][0] <= begin:
            inside.pop()
        if inside:
            times[inside[-1][1]] -= duration
        times[name] += duration
        inside.append((begin + duration, name))
    return times


def operation_type(name):
    """Returns the type in an event's name, "path/of/op:Conv2D"; "" for none."""
    name = name.partition("#")[0]
    path, _, kind = name.rpartition(":")
    is_type = kind.isidentifier() and kind not in _CONTAINERS
    return kind if path and is_type and ":" not in path else ""


def seconds_by_type(folder):
    """Returns {type of operation: seconds} of all threads of the processor.

    Args:
      folder: that `tf.profiler.experimental.start` was given.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    total = collections.Counter()
    for plane in space.planes:
        if plane.name != "/host:CPU":
            continue
        names = {n: data.name for n, data in plane.event_metadata.items()}
        for line in plane.lines:
            events = [
                (event.offset_ps, event.duration_ps, kind)
                for event in line.events
                if (kind := operation_type(names[event.metadata_id]))
            ]
            total.update(own_times(events))
    return {kind: picoseconds / 1e12 for kind, picoseconds in total.items()}
