"""What users combine, and one scenario on a choice of combinations in which every pair of settings meets."""
