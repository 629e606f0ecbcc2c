"""Tests of atat_tf."""
