-- The targets of a model alias, by priority: a JSON array of objects with provider_id,
-- upstream_id, weight and priority. NULL: the one of provider_id and upstream_id, which
-- are those of the first target, for routers that do not know this column.
ALTER TABLE models ADD COLUMN targets jsonb;
