"""What a client's call says: inputs checked and divided, answers read.

All of it is functions of their arguments; client.py sends and waits.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .. import tensors
from . import protos
from .errors import FailedPrecondition, InvalidArgument, expect, serving_error


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What a signature says of a tensor.

    Attributes:
      dtype: np.dtype; of objects for strings.
      shape: tuple of sizes, -1 where any will do; None for any shape.
    """

    dtype: np.dtype
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        name = "bytes" if self.dtype == object else str(self.dtype)
        if self.shape is None:
            return f"{name} of any shape"
        sizes = ["n" if i == 0 else "?" for i in range(len(self.shape))]
        sizes = [
            str(size) if size >= 0 else letter
            for size, letter in zip(self.shape, sizes, strict=True)
        ]
        return f"{name} [{', '.join(sizes)}]"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What goes into a signature and comes out, by name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """A model's name, the version that answered, its signatures by name."""

    model_name: str
    version: int
    signatures: dict[str, Signature]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """A version, its state as "AVAILABLE", and why it failed if it did."""

    version: int
    state: str
    error_code: str
    error_message: str


def metadata(response: protos.GetModelMetadataResponse) -> Metadata:
    """Returns what a server says of its model."""

    def specs(infos):
        return {
            name: TensorSpec(
                tensors.numpy_type(info.dtype),
                None
                if info.tensor_shape.unknown_rank
                else tuple(dim.size for dim in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items())
        }

    signatures = protos.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec = response.model_spec
    return Metadata(
        spec.name,
        spec.version.value,
        {
            name: Signature(specs(one.inputs), specs(one.outputs))
            for name, one in sorted(signatures.signature_def.items())
            if not name.startswith("__")  # SavedModel's own initializer
        },
    )


def statuses(
    response: protos.GetModelStatusResponse,
) -> list[VersionStatus]:
    """Returns the VersionStatus of each version, the newest first."""
    return [
        VersionStatus(
            one.version,
            type(one).State.Name(one.state),
            type(one.status)
            .DESCRIPTOR.fields_by_name["error_code"]
            .enum_type.values_by_number[one.status.error_code]
            .name,
            one.status.error_message,
        )
        for one in response.model_version_status
    ]


def signature(metadata: Metadata, name: str) -> Signature:
    """Returns a model's Signature by its name.

    Raises:
      FailedPrecondition: there is none; the code that a server would use.
    """
    known = metadata.signatures
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FailedPrecondition(
            "FAILED_PRECONDITION",
            f"Expected a signature among {', '.join(known)}. Received: "
            f"{name!r}.{hint}",
        )
    return known[name]


def checked_inputs(
    wanted: Signature,
    inputs: Mapping[str, ArrayLike],
    outputs: Sequence[str] | None,
) -> dict[str, np.ndarray]:
    """Returns {name: array} that a signature takes.

    Args:
      wanted: the signature.
      inputs: arrays, or what NumPy makes one of.
      outputs: names of outputs, or None for all.

    Raises:
      InvalidArgument: a name, a type or a shape does not fit.
    """
    expect(
        set(inputs) == set(wanted.inputs),
        f"the inputs {', '.join(wanted.inputs)}",
        ", ".join(inputs) or "none",
    )
    for name in outputs or ():
        expect(
            name in wanted.outputs,
            f"outputs among {', '.join(wanted.outputs)}",
            repr(name),
        )
    names = list(outputs or ())
    expect(len(set(names)) == len(names), "each output once", names)
    return {
        name: _checked_array(name, inputs[name], spec)
        for name, spec in wanted.inputs.items()
    }


def parts(
    wanted: Signature, arrays: dict[str, np.ndarray], max_batch_size: int
) -> list[tuple[dict[str, np.ndarray], int | None]]:
    """Returns the inputs of the requests that carry a batch.

    Args:
      wanted: the signature.
      arrays: as `checked_inputs` returns them.
      max_batch_size: examples in a request. A signature whose inputs have no
        first axis of any length takes a single request.

    Returns:
      The arrays and the number of examples of each request.

    Raises:
      InvalidArgument: inputs of several lengths, or no example at all.
    """
    shapes = [spec.shape for spec in wanted.inputs.values()]
    fixed = any(s is not None and (not s or s[0] >= 0) for s in shapes)
    if fixed or not arrays or any(a.ndim == 0 for a in arrays.values()):
        return [(arrays, None)]
    counts = {name: len(array) for name, array in arrays.items()}
    count = next(iter(counts.values()))
    expect(set(counts.values()) == {count}, "inputs of one length", counts)
    expect(count > 0, "at least one example", "none")
    return [
        (
            {n: a[start : start + max_batch_size] for n, a in arrays.items()},
            min(max_batch_size, count - start),
        )
        for start in range(0, count, max_batch_size)
    ]


def answer(response: protos.PredictResponse) -> dict[str, np.ndarray]:
    """Returns the outputs in a response by name.

    Raises:
      ServingError: the tensors cannot be read.
    """
    try:
        return {
            # A copy, since one from raw bytes would be read-only.
            name: np.array(tensors.from_proto(proto))
            for name, proto in sorted(response.outputs.items())
        }
    except ValueError as error:
        raise serving_error(
            "DATA_LOSS", f"Expected tensors in the answer. Received: {error}."
        ) from error


def joined(
    answers: Sequence[dict[str, np.ndarray]], counts: Sequence[int | None]
) -> dict[str, np.ndarray]:
    """Returns the parts' answers, one after the other.

    Raises:
      InvalidArgument: an output does not have one row an example.
    """
    if len(answers) == 1:
        return answers[0]
    for one, count in zip(answers, counts, strict=True):
        for name, array in one.items():
            expect(
                array.shape[:1] == (count,),
                "outputs with a row for each example, or no more examples "
                "than max_batch_size",
                f"output {name!r} of shape {list(array.shape)} for "
                f"{count} examples",
            )
    return {
        name: np.concatenate([one[name] for one in answers])
        for name in answers[0]
    }


def _checked_array(name, value, spec):
    try:
        # Of strings NumPy would cut zero bytes off, if it were not objects.
        dtype = object if spec.dtype == object else None
        array = np.asarray(value, dtype)
    except ValueError as error:  # rows of several lengths
        raise InvalidArgument(
            "INVALID_ARGUMENT",
            f"Expected input {name!r} as {spec}. Received: {error}.",
        ) from error
    received = f"{array.dtype} {list(array.shape)}"
    if array.dtype.kind in "iu" and spec.dtype.kind == "f":
        received += "; images from 0 to 255 are divided by 255 first"
    expect(_fits(array, spec), f"input {name!r} as {spec}", received)
    return np.ascontiguousarray(array, spec.dtype).reshape(array.shape)


def _fits(array, spec):
    """Returns whether an array is of the spec's type and shape.

    Floats may be of another width, and integers if no value changes.
    """
    if spec.shape is not None and (
        len(spec.shape) != array.ndim
        or any(
            size not in (-1, real)
            for size, real in zip(spec.shape, array.shape, strict=True)
        )
    ):
        return False
    kinds = array.dtype.kind, spec.dtype.kind
    if spec.dtype == object:
        return all(isinstance(v, bytes | str) for v in array.flat)
    if kinds == ("f", "f") or array.dtype == spec.dtype:
        return True
    is_integer = set("".join(kinds)) <= set("iu")
    return is_integer and bool((array.astype(spec.dtype) == array).all())
