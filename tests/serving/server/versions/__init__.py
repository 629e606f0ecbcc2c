"""Tests of versions and their lives."""
