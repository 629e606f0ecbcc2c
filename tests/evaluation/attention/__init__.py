"""Tests of attention as it is looked at."""
