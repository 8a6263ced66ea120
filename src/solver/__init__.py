"""Training and evaluation of a model: the rooms that direct."""
