"""TF Serving's messages and stubs, imported without loading TensorFlow.

The generated modules need only protobuf. But they import one another from
below the package `tensorflow`, and for that Python would first run
`tensorflow/__init__.py`, which takes seconds.
"""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def _package_not_run(name: str) -> Iterator[None]:
    """Has modules below a package imported without the package's own code.

    Afterwards nothing of it is left in `sys.modules`: a later import runs the
    package as ever. The messages are then the same classes, since protobuf
    keeps one for each name.
    """
    if name in sys.modules:
        yield
        return
    package = types.ModuleType(name)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package
    try:
        yield
    finally:
        for module in list(sys.modules):
            if module.split(".")[0] == name:
                del sys.modules[module]


with _package_not_run("tensorflow"):
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        GetModelMetadataResponse,
        SignatureDefMap,
    )
    from tensorflow_serving.apis.get_model_status_pb2 import (
        GetModelStatusRequest,
        GetModelStatusResponse,
    )
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.predict_pb2 import (
        PredictRequest,
        PredictResponse,
    )
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (
        PredictionServiceStub,
    )

__all__ = [
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "ModelServiceStub",
    "PredictRequest",
    "PredictResponse",
    "PredictionServiceStub",
    "SignatureDefMap",
]
