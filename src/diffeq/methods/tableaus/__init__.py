"""Tables of coefficients, a file for each family: data, and nothing else."""
