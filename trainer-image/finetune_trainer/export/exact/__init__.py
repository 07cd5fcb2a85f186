"""Proofs for which no model has to run: each weight of a file is what it must be."""
