"""From pictures of any kind to what is found in them, whatever computes the network.

NumPy and Pillow are enough here: an exported detector runs where torch is not installed.
"""
