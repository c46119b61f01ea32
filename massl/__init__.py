"""Self-supervised pretraining with a non-parametric memory (MaSSL), its evaluation, and ONNX export.

`import massl` and `import massl.core.images.decoding` load neither torch nor timm: the modules that need them import
them. It also switches off what other libraries report to their makers (`massl.core.telemetry`).
"""

from importlib.metadata import version

from massl.core.telemetry import switch_off

switch_off()

__version__ = version("massl")
