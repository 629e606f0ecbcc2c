"""The embedded server: gRPC and REST in front of TensorFlow's session."""
