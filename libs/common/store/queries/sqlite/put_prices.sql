-- One row; run for each price.
INSERT INTO prices (model, valid_from, input, cached_input, output, reasoning, service_tier)
VALUES (:model, :valid_from, :input, :cached_input, :output, :reasoning, :service_tier)
