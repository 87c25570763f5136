"""Checking arguments."""

__all__ = ["check", "check_at_least_one", "require"]


def require(fits: bool, demand: str, got: object) -> None:
    """Raise ValueError, ``demand, got ...``, unless an argument fits."""
    if not fits:
        raise ValueError(f"{demand}, got {got}")


def check(fits: bool, name: str, expected: str, got: object) -> None:
    """Raise ValueError about an argument unless it fits."""
    require(fits, f"{name} must be {expected}", got)


def check_at_least_one(**values: int | None) -> None:
    """Raise ValueError that names an argument, not None, below 1."""
    for name, value in values.items():
        check(value is None or value >= 1, name, "at least 1", value)
