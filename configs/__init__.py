"""Recipes: get_config(argument)."""
