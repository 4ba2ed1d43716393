"""Tests that run with the environment's own Python, by `test_vospace.py`: what they try is not beside ours."""
