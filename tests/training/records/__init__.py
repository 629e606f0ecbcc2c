"""Tests of what a training writes."""
