"""The core of diffusion: noise schedules, the forward process, losses and samplers.

It knows no config and no network: everything is a pure function of arrays.
"""
