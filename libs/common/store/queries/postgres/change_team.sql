-- Changes only the given fields, so that concurrent changes of other fields are kept.
UPDATE teams SET
    name = CASE WHEN given.fields ? 'name' THEN given.fields ->> 'name' ELSE name END,
    policy = CASE
        WHEN given.fields ? 'policy' THEN nullif(given.fields -> 'policy', 'null'::jsonb)
        ELSE policy
    END,
    key_defaults = CASE
        WHEN given.fields ? 'key_defaults'
        THEN nullif(given.fields -> 'key_defaults', 'null'::jsonb)
        ELSE key_defaults
    END,
    budget = CASE
        WHEN given.fields ? 'budget' THEN jsonb_strip_nulls(budget || (given.fields -> 'budget'))
        ELSE budget
    END
FROM (SELECT %(fields)s::jsonb AS fields) AS given
WHERE id = %(id)s
RETURNING id, name, policy, key_defaults, budget, created_at
