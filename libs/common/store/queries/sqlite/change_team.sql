-- Changes only the given fields, so that concurrent changes of other fields are kept.
UPDATE teams SET
    name = CASE
        WHEN json_type(:fields, '$.name') IS NOT NULL
        THEN json_extract(:fields, '$.name')
        ELSE name
    END,
    policy = CASE
        WHEN json_type(:fields, '$.policy') IS NOT NULL
        THEN json_extract(:fields, '$.policy')
        ELSE policy
    END,
    key_defaults = CASE
        WHEN json_type(:fields, '$.key_defaults') IS NOT NULL
        THEN json_extract(:fields, '$.key_defaults')
        ELSE key_defaults
    END,
    budget = CASE
        WHEN json_type(:fields, '$.budget') IS NOT NULL
        THEN json_patch(budget, json_extract(:fields, '$.budget'))
        ELSE budget
    END
WHERE id = :id
RETURNING id, name, policy, key_defaults, budget, created_at
