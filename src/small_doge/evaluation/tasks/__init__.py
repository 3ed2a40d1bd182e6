"""Task files in the harness's form, and the scorers that they name. Their data are not in the package."""
