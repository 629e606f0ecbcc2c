"""Tests of what counts are worth."""
