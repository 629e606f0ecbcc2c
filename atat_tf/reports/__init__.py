"""Figures, tables, the report's page, model cards, and archives."""
