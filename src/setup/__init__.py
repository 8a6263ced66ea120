"""Before the first run: weights, foreign code, and whether this machine is ready.

Nothing is offered here by name: the check of packages must start where torch is missing.
"""
