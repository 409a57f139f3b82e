"""lwnb: which small image classifier should run on my device?"""

from importlib.metadata import version

__version__ = version("lwnb")
