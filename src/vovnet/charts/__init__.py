"""Charts of reports: laid out once, drawn as SVG and as PNG, on pages that need nothing else."""
