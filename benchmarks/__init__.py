"""Where Plait's speed is known. `python -m benchmarks NAME`; figures are ratios within one run."""
