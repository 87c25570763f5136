"""Generated anatomy, coils and scans: data for trying and testing, without a download."""
