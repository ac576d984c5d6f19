-- Models that still have no price, if there are prices at all, or budgets in dollars; the
-- most used first.
SELECT model, last_seen_at, requests
FROM unpriced_models
WHERE last_seen_at >= :since::timestamptz
  AND (
      EXISTS (SELECT 1 FROM price_list)
      OR EXISTS (
          SELECT 1 FROM proxy_keys WHERE revoked_at IS NULL AND budget ->> 'usd' IS NOT NULL
      )
      OR EXISTS (SELECT 1 FROM teams WHERE budget ->> 'usd' IS NOT NULL)
  )
  AND NOT EXISTS (
      SELECT 1 FROM price_list AS price
      WHERE price.model IN (unpriced_models.model, unpriced_models.asked)
  )
ORDER BY requests DESC, model
LIMIT :rows
