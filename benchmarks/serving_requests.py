"""The model that `benchmarks.serving` calls: in process, and as requests."""

from collections.abc import Callable

import numpy as np

from benchmarks import serving_load
from serving import tensors
from serving.server import servable


class Model:
    """A version of a model whose signatures take images.

    Args:
      folder: of the version.
    """

    def __init__(self, folder):
        self._loaded = servable.Servable(folder)
        info = self._loaded.signatures["predict"].inputs["images"]
        self._shape = [dim.size for dim in info.tensor_shape.dim[1:]]

    def payload(self, signature: str, batch: int) -> bytes:
        """Returns the bytes of a PredictRequest for "model"."""
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = "model"
        request.model_spec.signature_name = signature
        tensors.to_proto(self._images(batch), request.inputs["images"])
        return request.SerializeToString()

    def call(self, signature: str, batch: int) -> Callable:
        """Returns a function that runs a signature, all of its outputs."""
        signature = self._loaded.signatures[signature]
        feeds = {signature.inputs["images"].name: self._images(batch)}
        outputs = [signature.outputs[o].name for o in sorted(signature.outputs)]
        return lambda: self._loaded.run(feeds, outputs)

    def timed(self, call: Callable, clients: int, seconds: float) -> dict:
        """Returns as `serving_load.timed_calls`, from so many threads."""
        call()
        return serving_load.timed_calls([call] * clients, seconds)

    def _images(self, batch):
        draw = np.random.default_rng(0)
        return draw.uniform(size=(batch, *self._shape)).astype(np.float32)
