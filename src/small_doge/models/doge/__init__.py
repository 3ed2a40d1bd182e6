"""Doge: its configuration and its models."""
