SELECT name, role, created_at FROM admin_tokens ORDER BY name
