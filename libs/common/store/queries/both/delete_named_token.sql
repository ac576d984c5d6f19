DELETE FROM admin_tokens WHERE name = :id RETURNING name, role, created_at
