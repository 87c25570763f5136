"""MoDL and UFLoss for fastMRI."""
