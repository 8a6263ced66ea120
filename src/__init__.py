"""D-FINE with a DINOv3 backbone: what the commands in train.py and tools/ are made of."""
