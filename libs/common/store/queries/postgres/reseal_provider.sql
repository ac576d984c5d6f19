-- Replaces the encrypted keys, unless they changed in the meantime.
UPDATE providers SET api_key_sealed = %(new)s
WHERE id = %(id)s AND api_key_sealed = %(old)s
RETURNING id
