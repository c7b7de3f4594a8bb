"""The one sampling engine: a canvas of latents, some known, the rest denoised.

It knows tensors, not commands or file names.
"""
