"""Where an attempt goes: the catalogue, the choice, and routing while Redis is down."""
