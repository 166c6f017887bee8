"""Losses: pure, masked, as (sum, count)."""
