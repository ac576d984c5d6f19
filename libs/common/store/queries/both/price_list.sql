-- The prices that count: the file's, and those of the admin API.
SELECT model, service_tier, valid_from, input, cached_input, output, reasoning, own
FROM price_list
ORDER BY model, service_tier, valid_from
