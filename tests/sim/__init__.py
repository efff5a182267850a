"""Tests of the offline exchange."""
