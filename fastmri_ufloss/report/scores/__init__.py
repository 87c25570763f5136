"""Scores of volumes by all methods: what is computed, kept and called."""
