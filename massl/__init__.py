"""Self-supervised pretraining with a non-parametric memory (MaSSL), its evaluation, and ONNX export.

`import massl` and `import massl.images` load neither torch nor timm: the modules that need them import them.
"""

from importlib.metadata import version

__version__ = version("massl")
