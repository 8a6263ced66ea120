"""The network and its losses: from pictures to outputs, to losses in training, to detections."""
