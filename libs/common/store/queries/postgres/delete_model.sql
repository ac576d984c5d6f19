DELETE FROM models WHERE alias = %(id)s RETURNING alias
