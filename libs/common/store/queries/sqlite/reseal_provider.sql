-- Replaces the encrypted keys, unless they changed in the meantime.
UPDATE providers SET api_key_sealed = :new
WHERE id = :id AND api_key_sealed = :old
RETURNING id
