"""Decides who may send a request: proxy keys, limits, tenants and browsers."""
