DELETE FROM models WHERE alias = :id RETURNING alias
