"""Repositories that live here."""
