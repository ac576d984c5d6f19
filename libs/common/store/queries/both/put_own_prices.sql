INSERT INTO own_prices (model, prices, updated_at)
VALUES (:id, :prices::jsonb, :at::timestamptz)
ON CONFLICT (model) DO UPDATE SET prices = excluded.prices, updated_at = excluded.updated_at
RETURNING model, prices, updated_at
