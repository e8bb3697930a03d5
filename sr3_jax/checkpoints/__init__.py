"""Checkpoints: a training run, an exported file, a name in the package.

Whoever has one can resume, evaluate or upscale.
"""
