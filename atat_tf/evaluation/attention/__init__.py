"""Where networks look, and what their attention maps are worth."""
