DELETE FROM own_prices WHERE model = :id
RETURNING model
