"""Networks, and what can be asked of any Keras classifier."""
