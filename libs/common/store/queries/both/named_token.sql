SELECT name, role, created_at FROM admin_tokens WHERE name = :id
