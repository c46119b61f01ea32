"""Encoders run by ONNX Runtime or OpenVINO, and the built-in one."""
