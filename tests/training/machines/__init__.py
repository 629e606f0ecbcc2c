"""Tests of machines."""
