"""Encoders: weights read from anywhere, checkpoints, whitening, and the ONNX file that is written."""
