-- The same key, sealed anew; not if it was replaced meanwhile.
UPDATE providers SET api_key_sealed = :new
WHERE id = :id AND api_key_sealed = :old
RETURNING id
