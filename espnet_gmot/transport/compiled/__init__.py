"""The solver compiled by numba for the CPU: float32, one sample a thread."""
