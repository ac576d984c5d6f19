-- One row; run for each.
INSERT INTO prices (model, valid_from, input, cached_input, output)
VALUES (:model, :valid_from, :input, :cached_input, :output)
