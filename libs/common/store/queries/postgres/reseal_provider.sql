-- The same key, sealed anew; not if it was replaced meanwhile.
UPDATE providers SET api_key_sealed = %(new)s
WHERE id = %(id)s AND api_key_sealed = %(old)s
RETURNING id
