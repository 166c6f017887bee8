"""Searching pictures with a trained system."""
