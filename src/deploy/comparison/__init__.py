"""Detectors side by side, and the files of one: size, speed, AP, agreement."""
