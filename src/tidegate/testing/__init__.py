"""Shipped to users for their own tests: stand-ins that behave, no mocks. Nothing imports it."""
