"""Typical wrong answers to the exercises: each must earn its own hint."""
