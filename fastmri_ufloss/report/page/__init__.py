"""The report as a page: what is shown, and how it becomes one file."""
