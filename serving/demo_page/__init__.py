"""The demo page: networks attacked live in a browser."""
