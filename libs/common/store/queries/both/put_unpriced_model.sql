-- Requests used tokens of a model without a price.
INSERT INTO unpriced_models (model, asked, last_seen_at, requests)
VALUES (:model, :asked, :at::timestamptz, :requests)
ON CONFLICT (model) DO UPDATE SET
    asked = excluded.asked,
    last_seen_at = excluded.last_seen_at,
    requests = unpriced_models.requests + excluded.requests
RETURNING model
