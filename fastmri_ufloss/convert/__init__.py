"""From the files of scanners and other tools to fastMRI volumes: ``python -m fastmri_ufloss.convert --help``."""
