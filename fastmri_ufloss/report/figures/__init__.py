"""Figures as PNG, JPG or PDF, each drawn from numbers and images that are handed in."""
