INSERT INTO prices (model, valid_from, input, cached_input, output, reasoning, service_tier)
SELECT * FROM json_to_recordset(%(rows)s) AS price (
    model text, valid_from timestamptz, input float8, cached_input float8,
    output float8, reasoning float8, service_tier text
)
