-- For the router's check of tokens only.
SELECT name, role, token_hash FROM admin_tokens
