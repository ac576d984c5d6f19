-- Prices that the admin API set: of one model, or all.
SELECT model, prices, updated_at
FROM own_prices
WHERE :id::text IS NULL OR model = :id::text
ORDER BY model
