"""Where speech comes from: AISHELL-1 as it is distributed, and a synthetic corpus in the same form."""
