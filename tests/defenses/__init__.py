"""Tests of defenses."""
