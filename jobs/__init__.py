"""Thin entry points: settings -> check -> connect -> run -> report -> exit code."""
