"""Request and response bodies: what they name, and changes to them."""
