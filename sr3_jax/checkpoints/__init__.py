"""Checkpoints of all kinds: a training run, an exported file, or weights in the package by name.

Each can be evaluated, used to upscale, or trained further from.
"""
