"""sora: a command-line video generator."""

__version__ = "0.1.0"
