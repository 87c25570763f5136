"""Checking arguments."""

__all__ = ["check"]


def check(fits: bool, name: str, expected: str, got: object) -> None:
    """Raise ValueError about an argument unless it fits."""
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {got}")
